package main

import (
	"syscall"
	"unsafe"
)

// What package syscall has no name for; the numbers are the kernel's, the same
// on every architecture that Go and skiff run on.
const (
	prGetDumpable       = 3
	prSetDumpable       = 4
	prSetChildSubreaper = 36
	prSetNoNewPrivs     = 38
	prCapBSetDrop       = 24
	sysMountSetattr     = 442
	capLast             = 63
)

// keptCaps are the capabilities a command may have at most: what engines give a
// container by default, without making devices, raw sockets, chroot and audit.
var keptCaps = map[uintptr]bool{
	0:  true, // CHOWN
	1:  true, // DAC_OVERRIDE
	3:  true, // FOWNER
	4:  true, // FSETID
	5:  true, // KILL
	6:  true, // SETGID
	7:  true, // SETUID
	8:  true, // SETPCAP
	10: true, // NET_BIND_SERVICE
	31: true, // SETFCAP
}

// prctl is for the calling thread; a kernel that does not know the option
// leaves things as they are.
func prctl(option, arg uintptr) {
	_, _, _ = syscall.RawSyscall6(syscall.SYS_PRCTL, option, arg, 0, 0, 0, 0)
}

// restrict takes from this thread's future children every privilege that a
// container would not have.
func restrict() {
	for c := uintptr(0); c <= capLast; c++ {
		if !keptCaps[c] {
			prctl(prCapBSetDrop, c)
		}
	}
	prctl(prSetNoNewPrivs, 1)
}

// closeToCommand keeps a command of the launcher's own user from looking into it
// or tracing it, where the launcher can still do its own work then: the files of
// such a process in /proc belong to the machine's root.
func closeToCommand() {
	prctl(prSetDumpable, 0)
	fd, err := syscall.Open(oomFile, syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		prctl(prSetDumpable, 1)
		return
	}
	_ = syscall.Close(fd)
}

// getAffinity reads which processors this thread may use.
func getAffinity(mask *[128]byte) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, uintptr(len(mask)), uintptr(unsafe.Pointer(mask)))
}

// setGroups sets this thread's supplementary groups.
func setGroups(groups []uint32) {
	var p unsafe.Pointer
	if len(groups) > 0 {
		p = unsafe.Pointer(&groups[0])
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(p), 0)
}
