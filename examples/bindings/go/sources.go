//go:build !qlora_system

package qlora

//go:generate sh -c "python3 ../../amalgamate.py . && mv qlora_amalgamated.cpp qlora_amalgamated.inc"

// #cgo CXXFLAGS: -std=c++17 -O2
// #cgo LDFLAGS: -lm
// #cgo linux LDFLAGS: -lpthread -ldl
import "C"
