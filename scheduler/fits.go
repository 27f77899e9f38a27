package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrUnsatisfiable is the class of demands that no waiting can fulfil.
var ErrUnsatisfiable = errors.New("the node can never satisfy this")

// unsatisfiable is an ErrUnsatisfiable that says the numbers.
type unsatisfiable struct{ text string }

func (e *unsatisfiable) Error() string        { return e.text }
func (e *unsatisfiable) Is(target error) bool { return target == ErrUnsatisfiable }

// Fits reports whether the demand fits the node when nothing else runs. The
// error is an ErrUnsatisfiable and says every number that is too large ("asks
// for 16 CPUs, the node has 2"). Devices that are out of service count: they
// may come back.
func Fits(node Node, demand Demand) error {
	return fits(&node, &demand, len(node.Devices))
}

func fits(node *Node, d *Demand, devices int) error {
	if d.CPUMilli <= node.CPUMilli && d.MemoryBytes <= node.MemoryBytes && d.GPUs <= devices &&
		d.GPUKind == "" && len(d.Pools) == 0 && len(d.HostPorts) == 0 {
		return nil
	}
	var bad []string
	if d.CPUMilli > node.CPUMilli {
		bad = append(bad, fmt.Sprintf("asks for %s, the node has %s", cpus(d.CPUMilli), cpuAmount(node.CPUMilli)))
	}
	if d.MemoryBytes > node.MemoryBytes {
		bad = append(bad, fmt.Sprintf("asks for %s of memory, the node has %s", bytesAmount(d.MemoryBytes), bytesAmount(node.MemoryBytes)))
	}
	switch {
	case d.GPUKind != "" && d.GPUs > 0:
		bad = append(bad, fmt.Sprintf("asks for %d × %s, the node has no device of that kind, only %s", d.GPUs, d.GPUKind, wholeGPUs(devices)))
	case d.GPUs > devices:
		bad = append(bad, fmt.Sprintf("asks for %s, the node has %s", gpus(d.GPUs), strconv.Itoa(devices)))
	}
	for _, name := range sortedKeys(d.Pools) {
		want := d.Pools[name]
		have, known := node.Pools[name]
		switch {
		case !known && want > 0:
			bad = append(bad, fmt.Sprintf("asks for %d of pool %q, the node has no such pool", want, name))
		case want > have:
			bad = append(bad, fmt.Sprintf("asks for %d of pool %q, the node has %d", want, name, have))
		}
	}
	for i, port := range d.HostPorts {
		if slices.Contains(d.HostPorts[:i], port) {
			bad = append(bad, fmt.Sprintf("asks for host port %d twice", port))
		}
	}
	if bad == nil {
		return nil
	}
	return &unsatisfiable{text: strings.Join(bad, "; ")}
}

func sortedKeys(m map[string]int64) []string {
	if len(m) == 0 {
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// cpuAmount renders thousandths of a processor: "2", "0.5", "1.25".
func cpuAmount(milli int64) string {
	return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64)
}

func cpus(milli int64) string {
	if milli == 1000 {
		return "1 CPU"
	}
	return cpuAmount(milli) + " CPUs"
}

func gpus(n int) string {
	if n == 1 {
		return "1 GPU"
	}
	return strconv.Itoa(n) + " GPUs"
}

func wholeGPUs(n int) string {
	if n == 1 {
		return "1 whole GPU"
	}
	return strconv.Itoa(n) + " whole GPUs"
}

// bytesAmount renders bytes in the largest binary unit that keeps them short.
func bytesAmount(n int64) string {
	units := []string{"Ki", "Mi", "Gi", "Ti", "Pi"}
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " bytes"
	}
	value, unit := float64(n), ""
	for _, u := range units {
		if value < 1<<10 {
			break
		}
		value, unit = value/(1<<10), u
	}
	return strconv.FormatFloat(float64(int64(value*100))/100, 'f', -1, 64) + unit
}
