package main

import (
	"fmt"
	"os"
)

// joinCgroups moves the launcher into control groups that the daemon made, so
// that everything it starts is in them from its first instruction.
func joinCgroups(dirs []string) error {
	for _, dir := range dirs {
		if err := os.WriteFile(dir+"/cgroup.procs", []byte("0"), 0); err != nil {
			return fmt.Errorf("join control group: %w", err)
		}
	}
	return nil
}
