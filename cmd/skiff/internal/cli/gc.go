package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server/view"
)

// gcPatience is after how long "skiff gc" says that it is at work.
const gcPatience = time.Second

func (a *app) gcCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove the contents of artifacts that are kept no longer",
		Long: "Remove the contents of artifacts that are kept no longer, at once; the daemon does the same\n" +
			"every ten minutes. The bounds are those of \"skiff up --retain\", or the namespace's own in the\n" +
			"config map " + skiff.RetentionConfigMap + ", or those given here. What was not used for longest goes first;\n" +
			"what is pinned, or of a pinned or active run, stays. Lineage stays in any case.\n" +
			"From buckets goes what skiff uploaded; where one is away it is tried again later.\n\n" +
			"  skiff gc --dry-run --retain max-age=30d,max-bytes=200GiB",
		Args: cobra.NoArgs,
	}
	out := outputFlag(cmd)
	dryRun := cmd.Flags().Bool("dry-run", false, "only show what would go")
	retain := cmd.Flags().String("retain", "", "bounds for this once, as in max-age=30d,max-runs=1000,max-bytes=200GiB")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := skiff.ParseRetention(*retain); err != nil {
			return refuse(fmt.Errorf("--retain: %w", err))
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		timer := time.AfterFunc(gcPatience, func() { a.notef("going through the artifacts of namespace %s…", a.namespace) })
		report, err := c.Purge(cmd.Context(), a.namespace, *retain, *dryRun)
		timer.Stop()
		if client.Invalid(err) {
			return refuse(err)
		}
		if err != nil {
			return err
		}
		if !out.people() {
			return a.printDocument(*out, report)
		}
		return a.printPurge(report)
	}
	return cmd
}

// printPurge shows what went, or would go.
func (a *app) printPurge(report *skiff.PurgeReport) error {
	if report.Stuck > 0 {
		a.notef("contents of %d artifacts were given up and are not removed; it is tried again every ten minutes: %s", report.Stuck, report.StuckMessage)
	}
	if report.Retention == "" {
		a.notef("namespace %s has no bounds, so everything is kept; set some with \"skiff up --retain\", in the config map %s, or here with --retain",
			report.Namespace, skiff.RetentionConfigMap)
		return nil
	}
	if len(report.Items) > 0 {
		rows := make([][]string, 0, len(report.Items))
		for _, item := range report.Items {
			rows = append(rows, []string{item.Name, item.Title, item.Run, view.Bytes(item.Bytes), item.LastUsed.Local().Format(time.DateTime), item.Reason})
		}
		if err := printRows(a.Out, []string{"Name", "Title", "Run", "Size", "Last used", "Reason"}, rows); err != nil {
			return err
		}
	}
	if more := report.Artifacts - len(report.Items); more > 0 {
		a.notef("… and %d more", more)
	}
	went := "were removed"
	if report.DryRun {
		went = "would go"
	}
	var kept []string
	for _, k := range []struct {
		n    int
		what string
	}{{report.Pinned, "pinned"}, {report.InUse, "in use"}} {
		if k.n > 0 {
			kept = append(kept, fmt.Sprintf("%d %s", k.n, k.what))
		}
	}
	line := fmt.Sprintf("%d artifacts, %s, %s (%s)", report.Artifacts, view.Bytes(report.Bytes), went, report.Retention)
	if report.BucketBytes > 0 {
		line = fmt.Sprintf("%d artifacts, %s (%s of it in buckets), %s (%s)",
			report.Artifacts, view.Bytes(report.Bytes), view.Bytes(report.BucketBytes), went, report.Retention)
	}
	if len(kept) > 0 {
		line += "; kept all the same: " + strings.Join(kept, ", ")
	}
	a.notef("%s", line)
	return nil
}

func (a *app) pinCommand(action string, pinned bool) *cobra.Command {
	short, done, value := "Keep artifacts, or what runs made and used, whatever the retention says", "is pinned", `"true"`
	if !pinned {
		short, done, value = "Leave artifacts or runs to the retention again", "is not pinned any more", "null"
	}
	return a.kindCommand(kindAction{
		use: action + " KIND NAME...", short: short, done: done, kinds: []string{"artifacts", "runs"},
		long: short + ".\nKIND is artifact or run; a run that is pinned cannot be deleted either.",
		do: func(ctx context.Context, c *client.Client, plural, name string) error {
			return c.Annotate(ctx, mustKind(plural), a.namespace, name, skiff.AnnotationPinned, value)
		},
	})
}
