package device

import "fmt"

// FaultHealth is what an error number of NVIDIA's driver (an XID) means for the
// device, with a sentence. Healthy: the program is at fault, or a single task's
// data; the device stays in use.
func FaultHealth(xid uint64) (Health, string) {
	switch xid {
	case 13, 31, 43, 45, 68, 109:
		return Healthy, fmt.Sprintf("XID %d: a program's own error.", xid)
	case 94:
		return Healthy, "XID 94: a contained memory error; only the program that read it is affected."
	case 79:
		return Unhealthy, "XID 79: the device fell off the bus. Reboot, and check power and seating if it returns."
	case 48, 63, 64, 95:
		return Unhealthy, fmt.Sprintf("XID %d: a memory error that needs a reset. Run nvidia-smi --gpu-reset when the device is idle, or reboot.", xid)
	case 74:
		return Unhealthy, "XID 74: an NVLink error. Reset the device, or reboot; the link or bridge may be damaged if it returns."
	case 92, 119, 120:
		return Unhealthy, fmt.Sprintf("XID %d: the device's firmware or memory needs a reset. Run nvidia-smi --gpu-reset when it is idle, or reboot.", xid)
	case 0:
		return Suspect, "The driver reported a fault without a number."
	default:
		return Suspect, fmt.Sprintf("XID %d: a fault that may pass.", xid)
	}
}
