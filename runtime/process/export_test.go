package process

// LauncherPID reads which process a container's launcher is.
func LauncherPID(dir string) (int, error) {
	s, err := readSpawned(dir)
	return s.PID, err
}
