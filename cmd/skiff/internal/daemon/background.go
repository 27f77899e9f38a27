package daemon

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// Background starts a daemon of its own that ends when no run is active. It
// does not wait for it; its words go to LogPath.
func Background(cfg Config) error {
	if cfg.Executable == "" {
		return errors.New("start a daemon in the background: this program's file is not known")
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("start a daemon in the background: %w", err)
	}
	log, err := os.OpenFile(LogPath(cfg.StateDir), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start a daemon in the background: %w", err)
	}
	defer func() { _ = log.Close() }()
	args := []string{"up", "--until-idle", "--listen", "", "--state-dir", cfg.StateDir}
	for flag, value := range map[string]string{
		"--runtime": cfg.Runtime, "--fake-gpus": cfg.FakeGPUs, "--fake-node": cfg.FakeNode, "--container-ca": cfg.ContainerCA,
		"--pipeline-urls": cfg.PipelineURLs, "--retain": cfg.Retain.String(),
	} {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	if cfg.CacheExpiry != "" {
		args = append(args, "--cache-expiry", cfg.CacheExpiry)
	}
	if cfg.WarmSteps != 0 {
		args = append(args, "--warm-steps", strconv.Itoa(cfg.WarmSteps))
	}
	if cfg.ArtifactCache != 0 {
		args = append(args, "--artifact-cache", strconv.FormatInt(cfg.ArtifactCache, 10))
	}
	if cfg.DiskReserve != 0 {
		args = append(args, "--disk-reserve", strconv.FormatInt(cfg.DiskReserve, 10))
	}
	if cfg.StorePatience != 0 {
		args = append(args, "--store-patience", cfg.StorePatience.String())
	}
	if cfg.S3FromEnv {
		args = append(args, "--s3-from-env")
	}
	for _, entry := range cfg.ContainerEnv {
		args = append(args, "--container-env", entry)
	}
	for _, entry := range cfg.NodeLabels {
		args = append(args, "--node-label", entry)
	}
	cmd := exec.Command(cfg.Executable, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// A session of its own: the terminal's signals are not for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a daemon in the background: %w", err)
	}
	if err := cmd.Process.Release(); err != nil {
		return fmt.Errorf("start a daemon in the background: %w", err)
	}
	return nil
}
