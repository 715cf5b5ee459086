//go:build qlora_system

package qlora

// #cgo pkg-config: qlora
import "C"
