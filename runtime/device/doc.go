// Package device says which accelerators the node has: the Inventory, where one
// comes from (Source), the declared fakes for machines that have none, and the
// environment that makes granted devices, and no others, visible.
//
// The real inventory comes from the helper behind runtime/plugin; this package
// holds the plain data and what pure Go can read without it. It must not import
// the scheduler, the store, cgo or any NVIDIA library.
package device
