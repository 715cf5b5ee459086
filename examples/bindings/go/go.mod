module qlora

go 1.18
