package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server/view"
)

// selectionPage is how many runs are asked for at a time while all of them are
// gone through; each is read by itself and dropped when it does not fit.
const selectionPage = 200

// selectionOptions pick and order runs by what they hold.
type selectionOptions struct {
	sort    string
	filters []string
}

func (o *selectionOptions) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.sort, "sort", "", "metric:NAME or param:NAME, with :asc or :desc behind it; without, the best metric comes first")
	cmd.Flags().StringArrayVar(&o.filters, "filter", nil, "only runs that fit, as in 'param:lr>0.01' or 'metric:loss<=0.2'; given again, all must fit")
}

func (o *selectionOptions) given() bool { return o.sort != "" || len(o.filters) > 0 }

// parse reads the flags.
func (o *selectionOptions) parse() (*view.Order, []view.Filter, error) {
	var order *view.Order
	if o.sort != "" {
		parsed, err := view.ParseOrder(o.sort)
		if err != nil {
			return nil, nil, refuse(err)
		}
		order = &parsed
	}
	var filters []view.Filter
	for _, text := range o.filters {
		filter, err := view.ParseFilter(text)
		if err != nil {
			return nil, nil, refuse(err)
		}
		filters = append(filters, filter)
	}
	return order, filters, nil
}

// selectRuns shows the runs that the filters and the order pick. However many
// there are, no more than twice the limit are held.
func (a *app) selectRuns(ctx context.Context, c *client.Client, list client.ListOptions, opts *getOptions) error {
	order, filters, err := opts.selection.parse()
	if err != nil {
		return err
	}
	picked := view.NewSelection(order, opts.limit)
	list.Limit = selectionPage
	for {
		page, err := c.List(ctx, mustKind("runs"), list)
		if err != nil {
			return err
		}
		for i := range page.Items {
			documents, err := runDocuments(ctx, c, page.Items[i:i+1])
			if err != nil {
				return err
			}
			for _, run := range documents {
				if !slices.ContainsFunc(filters, func(f view.Filter) bool { return !f.Match(run) }) {
					picked.Add(run)
				}
			}
		}
		if list.Continue = page.Metadata.Continue; list.Continue == "" || picked.Full() {
			break
		}
	}
	runs := picked.Runs()
	if picked.Dropped > 0 || list.Continue != "" {
		a.notef("there are more runs; --limit 0 shows all")
	}
	if !opts.out.people() {
		return a.printDocument(*opts.out, map[string]any{"items": runs})
	}
	if len(runs) == 0 {
		a.notef("no runs")
		return nil
	}
	return a.printSelected(runs, order, filters, opts.all)
}

// printSelected shows runs with the values that they were picked by.
func (a *app) printSelected(runs []*view.Run, order *view.Order, filters []view.Filter, namespaces bool) error {
	var fields []view.Field
	if order != nil {
		fields = append(fields, order.Field)
	}
	for _, f := range filters {
		if !slices.Contains(fields, f.Field) {
			fields = append(fields, f.Field)
		}
	}
	headings := []string{"RUN", "PIPELINE", "STATE", "AGE"}
	if namespaces {
		headings = append([]string{"NAMESPACE"}, headings...)
	}
	for _, f := range fields {
		headings = append(headings, f.String())
	}
	// The fields' names are the users' own, so they stay as they are.
	rows := [][]string{headings}
	for _, run := range runs {
		row := []string{run.RunID, run.Pipeline, string(run.State), view.Duration(time.Since(run.Created))}
		if namespaces {
			row = append([]string{run.Namespace}, row...)
		}
		for _, f := range fields {
			row = append(row, fieldText(f, run))
		}
		rows = append(rows, row)
	}
	return printLines(a.Out, rows)
}
