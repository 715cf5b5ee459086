//go:build !qlora_system

// The library itself, backends ref and cpu, in one file that `go generate` writes; go build compiles it with the package.
#include "qlora_amalgamated.inc"
