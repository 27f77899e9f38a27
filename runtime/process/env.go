package process

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// searchPath is a container's PATH where its image names none.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is what the launcher, and so the command, starts with. Nothing of
// the daemon's own is in it: that may hold credentials.
func (c *container) environment(iso isolation) []string {
	home := "/tmp"
	if iso.level != LevelNamespaces {
		home = filepath.Join(c.dir, tmpFolder)
	}
	env := []string{"PATH=" + searchPath, "HOME=" + home, "LANG=C.UTF-8"}
	if iso.level != LevelNamespaces {
		env = append(env, "TMPDIR="+home)
	}
	if c.spec.Hostname != "" {
		env = append(env, "HOSTNAME="+c.spec.Hostname)
	}
	env = slices.Concat(env, c.b.cfg.Env, c.spec.Image.Env, c.spec.Env, c.deviceEnv())
	return lastWins(env)
}

// deviceEnv tells a command which devices it may use; it comes after whatever
// the user wrote. Without a grant it may use none.
func (c *container) deviceEnv() []string {
	if len(c.spec.GPUs) == 0 {
		return []string{"CUDA_VISIBLE_DEVICES=", "NVIDIA_VISIBLE_DEVICES=void"}
	}
	list := strings.Join(c.spec.GPUs, ",")
	return []string{"CUDA_VISIBLE_DEVICES=" + list, "NVIDIA_VISIBLE_DEVICES=" + list}
}

// lastWins drops all but the last value of each name.
func lastWins(env []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, kv := range slices.Backward(env) {
		name, _, _ := strings.Cut(kv, "=")
		if !seen[name] {
			seen[name] = true
			out = append(out, kv)
		}
	}
	slices.Reverse(out)
	return out
}

// gpuDevices are the device nodes of GPUs, with those that every use needs. A
// GPU whose node the driver does not tell brings them all.
func gpuDevices(uuids []string) []string {
	nodes := existing("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
	minors := gpuMinors()
	for _, uuid := range uuids {
		if minor, ok := minors[uuid]; ok {
			nodes = append(nodes, existing("/dev/nvidia"+minor)...)
			continue
		}
		all, _ := filepath.Glob("/dev/nvidia[0-9]*") // the pattern is well-formed
		caps, _ := filepath.Glob("/dev/nvidia-caps/*")
		nodes = append(append(nodes, all...), caps...)
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// gpuMinors reads from the driver which UUID is /dev/nvidiaN.
func gpuMinors() map[string]string {
	minors := map[string]string{}
	files, _ := filepath.Glob("/proc/driver/nvidia/gpus/*/information") // the pattern is well-formed
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var uuid, minor string
		for line := range strings.Lines(string(data)) {
			name, value, _ := strings.Cut(line, ":")
			switch strings.TrimSpace(name) {
			case "GPU UUID":
				uuid = strings.TrimSpace(value)
			case "Device Minor":
				minor = strings.TrimSpace(value)
			}
		}
		if uuid != "" && minor != "" {
			minors[uuid] = minor
		}
	}
	return minors
}

func existing(paths ...string) []string {
	return slices.DeleteFunc(paths, func(path string) bool {
		_, err := os.Stat(path)
		return err != nil
	})
}
