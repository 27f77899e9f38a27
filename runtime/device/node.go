package device

import (
	"fmt"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/problem"
)

// Node is a declared machine: what claims are counted against. What runs is
// clamped to what the real machine has. 0 means not declared: the real amount.
type Node struct {
	CPUMilli    int64
	MemoryBytes int64
}

// The largest node that can be declared. Sums of claims stay far from overflow.
const (
	maxNodeCPUMilli = 1 << 20 * 1000
	maxNodeMemory   = 1 << 50
)

// ParseFakeNode reads what --fake-node declares: "cpu=64,mem=256Gi", either part
// alone too. Errors are a problem.List, an ErrInvalid.
func ParseFakeNode(text string) (Node, error) {
	var n Node
	var problems problem.List
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if key == "memory" {
			key = "mem"
		}
		if !ok || (key != "cpu" && key != "mem") {
			_ = problems.Add(strings.TrimSpace(part), "want cpu=AMOUNT or mem=AMOUNT")
			continue
		}
		if seen[key] {
			_ = problems.Add(key, "is given twice")
			continue
		}
		seen[key] = true
		q, err := core.ParseQuantity(value)
		if err != nil {
			_ = problems.Add(key, "%w", err)
			continue
		}
		switch key {
		case "cpu":
			n.CPUMilli = bounded(&problems, key, q, q.Milli(), maxNodeCPUMilli, "1m and 1048576")
		case "mem":
			n.MemoryBytes = bounded(&problems, key, q, q.Value(), maxNodeMemory, "1 byte and 1Pi")
		}
	}
	for _, p := range problems {
		p.Op, p.Object, p.Hint = "declare a fake node", text, "for example --fake-node cpu=64,mem=256Gi"
	}
	return n, problems.OrNil()
}

func bounded(problems *problem.List, key string, q core.Quantity, value, highest int64, words string) int64 {
	if value < 1 || value > highest {
		_ = problems.Add(key, "%s: want between %s", q, words)
		return 0
	}
	return value
}

// String is the notation that ParseFakeNode reads.
func (n Node) String() string {
	var parts []string
	if n.CPUMilli > 0 {
		parts = append(parts, "cpu="+core.NewMilliQuantity(n.CPUMilli).String())
	}
	if n.MemoryBytes > 0 {
		parts = append(parts, "mem="+memoryText(n.MemoryBytes))
	}
	return strings.Join(parts, ",")
}

// memoryText writes bytes in the largest binary unit that loses nothing.
func memoryText(bytes int64) string {
	units := []string{"", "Ki", "Mi", "Gi", "Ti"}
	i := 0
	for i < len(units)-1 && bytes%1024 == 0 {
		bytes /= 1024
		i++
	}
	return fmt.Sprintf("%d%s", bytes, units[i])
}
