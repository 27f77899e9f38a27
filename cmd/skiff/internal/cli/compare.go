package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/server/view"
)

// maxCompared is where a table ends to be one that can be read, and a bound for
// what is held at a time.
const maxCompared = 64

func (a *app) compareCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "compare RUN RUN…",
		Short: "Set runs side by side: what differs in their parameters, and their metrics",
		Long: "Set runs side by side: the parameters that differ, the scalar metrics, and sums of the\n" +
			"classification metrics (area under the ROC curve; accuracy, precision, recall and F1 of\n" +
			"the confusion matrix, as unweighted means over the categories).\n\n" +
			"The best value of a metric has a star. Its name tells whether that is the highest\n" +
			"(accuracy, auc, f1, score…) or the lowest (loss, error, latency…); --higher and --lower\n" +
			"decide for other names.",
		Example: "  skiff compare 0197a3 0197b4\n" +
			"  skiff compare 0197a3 0197b4 --lower drift -o json",
		Args: cobra.RangeArgs(2, maxCompared),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			names := slices.DeleteFunc(a.names(cmd.Context(), "runs"), func(name string) bool { return slices.Contains(args, name) })
			return withPrefix(names, typed), cobra.ShellCompDirectiveNoFileComp
		},
	}
	out := outputFlag(cmd)
	higher := cmd.Flags().StringSlice("higher", nil, "metrics of which a higher value is better")
	lower := cmd.Flags().StringSlice("lower", nil, "metrics of which a lower value is better")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		directions := map[string]view.Direction{}
		for _, name := range *higher {
			directions[name] = view.Higher
		}
		for _, name := range *lower {
			if directions[name] != view.NoDirection {
				return refuse(fmt.Errorf("metric %s is given to --higher and to --lower", name))
			}
			directions[name] = view.Lower
		}
		c, done, err := a.reader(cmd.Context())
		if err != nil {
			return err
		}
		defer done()
		runs := make([]*view.Run, 0, len(args))
		for i, name := range args {
			if slices.Contains(args[:i], name) {
				return refuse(fmt.Errorf("run %s is given twice", name))
			}
			run, err := c.Run(cmd.Context(), a.namespace, name)
			if err != nil {
				return err
			}
			runs = append(runs, run)
		}
		comparison := view.Compare(runs, directions)
		for name := range directions {
			if !mentions(comparison, name) {
				a.notef("no run has a metric %s", name)
			}
		}
		if !out.people() {
			return a.printDocument(*out, comparison)
		}
		return a.printComparison(comparison)
	}
	return cmd
}

// mentions reports whether a metric is called so, with or without its task.
func mentions(c *view.Comparison, name string) bool {
	for _, m := range slices.Concat(c.Metrics, c.Classification) {
		if m.Name == name || m.Plain() == name {
			return true
		}
	}
	return false
}

func (a *app) printComparison(c *view.Comparison) error {
	heading := func(first string) []string {
		line := []string{first}
		for _, run := range c.Runs {
			line = append(line, run.RunID)
		}
		return line
	}
	state, pipeline, name := []string{"state"}, []string{"pipeline"}, []string{"name"}
	for _, run := range c.Runs {
		word := string(run.State)
		if run.Fake {
			word += " (fake node)"
		}
		state, pipeline, name = append(state, word), append(pipeline, run.Pipeline), append(name, run.DisplayName)
	}
	if err := printLines(a.Out, [][]string{heading("RUN"), state, pipeline, name}); err != nil {
		return err
	}
	parameters := [][]string{heading("PARAMETER")}
	for _, p := range c.Parameters {
		parameters = append(parameters, comparedRow(p, nil))
	}
	metrics, classes := [][]string{heading("METRIC")}, [][]string{heading("CLASSIFICATION")}
	for _, m := range c.Metrics {
		metrics = append(metrics, comparedRow(m.ComparedValues, m.Best))
	}
	for _, m := range c.Classification {
		classes = append(classes, comparedRow(m.ComparedValues, m.Best))
	}
	for _, lines := range [][][]string{parameters, metrics, classes} {
		if len(lines) == 1 {
			continue
		}
		if _, err := fmt.Fprintln(a.Out); err != nil {
			return err
		}
		if err := printLines(a.Out, lines); err != nil {
			return err
		}
	}
	if c.Same > 0 {
		a.notef("parameters that are the same in all runs: %d", c.Same)
	}
	return nil
}

func comparedRow(values view.ComparedValues, best []int) []string {
	row := []string{values.Name}
	for i, value := range values.Values {
		cell := "-"
		if value != nil {
			cell = short(value)
		}
		if slices.Contains(best, i) {
			cell += " *"
		}
		row = append(row, cell)
	}
	return row
}
