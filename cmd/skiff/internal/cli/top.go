package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server/view"
)

// sampleInterval is between the two readings that a rate of processor use is
// made from: long enough for the kernel's accounting, short enough to wait for.
const sampleInterval = 500 * time.Millisecond

// topRow is one line of "skiff top".
type topRow struct {
	view.Usage
	// CPUMilli is the rate over the sample, in thousandths of a core.
	CPUMilli int64 `json:"cpu_milli"`
}

func (a *app) topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show what the node has and what each pod uses: cpu, memory, GPUs",
		Args:  cobra.NoArgs,
	}
	out := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		node, err := c.Node(cmd.Context())
		if err != nil {
			return err
		}
		rows, err := sampleUsage(cmd.Context(), c)
		if err != nil {
			return err
		}
		if !out.people() {
			return a.printDocument(*out, map[string]any{"node": node, "pods": rows})
		}
		return a.printTop(node, rows)
	}
	return cmd
}

// sampleUsage reads twice and computes rates; a pod that is in one reading only
// has none.
func sampleUsage(ctx context.Context, c *client.Client) ([]topRow, error) {
	before, err := c.Usage(ctx)
	if err != nil {
		return nil, err
	}
	if len(before) > 0 {
		select {
		case <-time.After(sampleInterval):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	after, err := c.Usage(ctx)
	if err != nil {
		return nil, err
	}
	earlier := make(map[string]view.Usage, len(before))
	for _, u := range before {
		earlier[u.Namespace+"/"+u.Name] = u
	}
	rows := make([]topRow, 0, len(after))
	for _, u := range after {
		row := topRow{Usage: u}
		if first, ok := earlier[u.Namespace+"/"+u.Name]; ok {
			if span := u.At.Sub(first.At); span > 0 && u.CPUNanos >= first.CPUNanos {
				row.CPUMilli = (u.CPUNanos - first.CPUNanos) * 1000 / span.Nanoseconds()
			}
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b topRow) int { return int(b.CPUMilli - a.CPUMilli) })
	return rows, nil
}

func (a *app) printTop(node *view.Node, rows []topRow) error {
	fake := ""
	if node.Fake {
		fake = "  (FAKE capacity, declared by --fake-gpus or --fake-node)"
	}
	_, err := fmt.Fprintf(a.Out, "cpu %s of %s claimed, memory %s of %s claimed, gpus %d of %d claimed%s\n",
		view.CPU(node.Claimed.CPUMilli), view.CPU(node.Capacity.CPUMilli),
		view.Bytes(node.Claimed.MemoryBytes), view.Bytes(node.Capacity.MemoryBytes),
		node.Claimed.GPUs, node.Capacity.GPUs, fake)
	if err != nil {
		return err
	}
	var cells [][]string
	for _, d := range node.Devices {
		state := "healthy"
		if !d.Healthy {
			state = "not healthy"
		}
		if d.Fake {
			state += ", fake"
		}
		cells = append(cells, []string{fmt.Sprint(d.Index), d.Model, view.Bytes(d.MemoryBytes), state, d.HeldBy})
	}
	if err := a.section([]string{"GPU", "Model", "Memory", "State", "Held by"}, cells); err != nil {
		return err
	}
	cells = nil
	for _, r := range rows {
		gpus := strings.Join(r.GPUs, ",")
		if gpus != "" && r.Fake {
			gpus += " (fake)"
		}
		cells = append(cells, []string{r.Name, r.Run, r.Task, view.CPU(r.CPUMilli), view.CPU(r.Claim.CPUMilli),
			view.Bytes(r.MemoryBytes), view.Bytes(r.Claim.MemoryBytes), gpus})
	}
	return a.section([]string{"Pod", "Run", "Task", "CPU", "of", "Memory", "of", "GPUs"}, cells)
}
