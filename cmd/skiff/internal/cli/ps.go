package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
)

// processRow is one line of "skiff ps".
type processRow struct {
	Pod       string   `json:"pod"`
	Namespace string   `json:"namespace"`
	Run       string   `json:"run,omitempty"`
	Task      string   `json:"task,omitempty"`
	Phase     string   `json:"phase"`
	CPU       int64    `json:"cpu_milli"`
	Memory    int64    `json:"memory_bytes"`
	GPUs      []string `json:"gpus"`
	Started   string   `json:"started,omitempty"`
	Message   string   `json:"message,omitempty"`
}

func (a *app) psCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "Show what runs and what waits now, and why it waits",
		Args:  cobra.NoArgs,
	}
	out := outputFlag(cmd)
	all := cmd.Flags().BoolP("all-namespaces", "A", false, "in all namespaces")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, done, err := a.reader(cmd.Context())
		if err != nil {
			return err
		}
		defer done()
		opts := client.ListOptions{Namespace: a.namespace, Fields: "status.phase!=Succeeded,status.phase!=Failed"}
		if *all {
			opts.Namespace = ""
		}
		rows := []processRow{}
		for {
			page, err := c.List(cmd.Context(), mustKind("pods"), opts)
			if err != nil {
				return err
			}
			for _, item := range page.Items {
				var pod core.Pod
				if err := decode(item, &pod); err != nil {
					return err
				}
				rows = append(rows, processOf(&pod))
			}
			if opts.Continue = page.Metadata.Continue; opts.Continue == "" {
				break
			}
		}
		if !out.people() {
			return a.printDocument(*out, map[string]any{"items": rows})
		}
		if len(rows) == 0 {
			a.notef("nothing runs and nothing waits")
			return nil
		}
		cells := make([][]string, 0, len(rows))
		for _, r := range rows {
			cells = append(cells, []string{r.Pod, r.Run, r.Task, r.Phase, strconv.Itoa(len(r.GPUs)), r.Started, r.Message})
		}
		return printRows(a.Out, []string{"Pod", "Run", "Task", "Phase", "GPUs", "Started", "Message"}, cells)
	}
	return cmd
}

func processOf(pod *core.Pod) processRow {
	row := processRow{
		Pod: pod.Name, Namespace: pod.Namespace, Run: pod.Labels[core.LabelRun], Task: pod.Labels[core.LabelTask],
		Phase: string(pod.Status.Phase), Message: pod.Status.Message, GPUs: []string{},
	}
	if row.Phase == "" {
		row.Phase = string(core.PodPending)
	}
	if claim := pod.Status.Claim; claim != nil {
		row.CPU, row.Memory = claim.CPUMilli, claim.MemoryBytes
		row.GPUs = append(row.GPUs, claim.GPUs...)
	}
	if !pod.Status.StartTime.IsZero() {
		row.Started = pod.Status.StartTime.Local().Format("15:04:05")
	}
	if row.Message == "" && strings.EqualFold(row.Phase, string(core.PodPending)) {
		row.Message = pod.Status.Reason
	}
	return row
}
