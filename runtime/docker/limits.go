package docker

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/skiff-ml/skiff/runtime/docker/dockerapi"
)

const (
	// noFile is what data loaders ask for: an engine's own limit may be 1024.
	noFile = 65536
	// gpuStack is what NCCL asks for.
	gpuStack = 64 * mib
	// capSysResource is the capability to raise limits.
	capSysResource = 24
	// enginePIDFile is where an engine leaves its process id.
	enginePIDFile = "/run/docker.pid"
)

// engineLimits are what the engine's own process may do to limits. An engine in
// a nested machine may raise none, and a container that asks for more than the
// engine has does not start.
type engineLimits struct {
	mayRaise bool
	noFile   int64 // the engine's own hard limit, 0 where unknown
}

// readEngineLimits looks at the engine's process. One that cannot be found is
// taken for what it nearly always is: root with all of root's rights.
func readEngineLimits() engineLimits {
	data, err := os.ReadFile(enginePIDFile)
	if err != nil {
		return engineLimits{mayRaise: true}
	}
	return readProcessLimits(filepath.Join("/proc", strings.TrimSpace(string(data))))
}

func readProcessLimits(proc string) engineLimits {
	l := engineLimits{mayRaise: true}
	if value, ok := procField(filepath.Join(proc, "status"), "CapEff:"); ok {
		if caps, err := strconv.ParseUint(value, 16, 64); err == nil {
			l.mayRaise = caps&(1<<capSysResource) != 0
		}
	}
	if value, ok := procField(filepath.Join(proc, "limits"), "Max open files"); ok {
		// soft, hard, unit; "unlimited" stays 0.
		if f := strings.Fields(value); len(f) > 1 {
			l.noFile, _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	return l
}

// procField returns what follows a name at the start of a line.
func procField(path, name string) (string, bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), name); ok {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

// ulimits are what a container gets, as far as the engine may give it.
func (l engineLimits) ulimits(gpu bool) []*dockerapi.Ulimit {
	files := int64(noFile)
	if !l.mayRaise {
		if l.noFile == 0 {
			return nil
		}
		files = min(files, l.noFile)
	}
	list := []*dockerapi.Ulimit{{Name: "nofile", Soft: files, Hard: files}}
	if gpu && l.mayRaise {
		// CUDA pins memory.
		list = append(list,
			&dockerapi.Ulimit{Name: "memlock", Soft: -1, Hard: -1},
			&dockerapi.Ulimit{Name: "stack", Soft: gpuStack, Hard: gpuStack})
	}
	return list
}
