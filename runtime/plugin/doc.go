// Package plugin is the host's side of skiff's helper programs. It starts one,
// holds it to its checksum and its contract, gives every call a deadline, ends
// it when it hangs, starts it again, and keeps the daemon unaffected meanwhile.
//
// The one helper so far is the inventory of accelerators: Supervisor is a
// device.Source over it, with what pure Go can read where it is missing. It must
// not import the scheduler, the store or any NVIDIA library.
package plugin
