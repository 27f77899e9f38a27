// Command skiff-nvml reads NVIDIA's accelerators for skiff, which starts it and
// speaks gRPC with it (plugins/proto/inventory).
//
// It is a program of its own for two reasons. NVML needs cgo and the dynamic
// loader, and the daemon has neither; and NVML can end or hang its process: a
// call that the installed driver lacks is a failed symbol look-up that no Go
// code can recover from, and a call to a device that fell off the bus may never
// come back. So it holds no state worth keeping, may be killed at any moment,
// and ends by itself when skiff does.
//
// It must not import anything of skiff's but the contract.
package main
