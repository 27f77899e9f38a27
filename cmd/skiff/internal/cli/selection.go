package cli

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server/query"
	"github.com/skiff-ml/skiff/server/view"
)

// selectionPage is how many runs are asked for at a time where all are wanted.
const selectionPage = 500

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

// parse checks the flags and returns the fields that they name.
func (o *selectionOptions) parse() (fields []string, err error) {
	if o.sort != "" {
		field, _, err := query.ParseOrder(o.sort)
		if err != nil {
			return nil, refuse(err)
		}
		fields = append(fields, field)
	}
	for _, text := range o.filters {
		condition, err := query.ParseCondition(text)
		if err != nil {
			return nil, refuse(err)
		}
		if !slices.Contains(fields, condition.Key) {
			fields = append(fields, condition.Key)
		}
	}
	return fields, nil
}

// selectRuns shows the runs that the filters and the order pick: the daemon
// picks them. A page of its may be short, or empty, and not be the last.
func (a *app) selectRuns(ctx context.Context, c *client.Client, list client.ListOptions, opts *getOptions) error {
	fields, err := opts.selection.parse()
	if err != nil {
		return err
	}
	list.Sort, list.Filters = opts.selection.sort, opts.selection.filters
	if list.Limit == 0 {
		list.Limit = selectionPage
	}
	items := []json.RawMessage{}
	for {
		page, err := c.List(ctx, mustKind("runs"), list)
		if err != nil {
			return err
		}
		items = append(items, page.Items...)
		if !a.more(&list, page.Metadata.Continue, len(items), opts.limit, "runs") {
			break
		}
	}
	if !opts.out.people() {
		documents, err := runDocuments(ctx, c, items)
		if err != nil {
			return err
		}
		return a.printDocument(*opts.out, map[string]any{"items": documents})
	}
	if len(items) == 0 {
		a.notef("no runs")
		return nil
	}
	return a.printSelected(items, fields, opts.all)
}

// printSelected shows runs with the values that they were picked by.
func (a *app) printSelected(items []json.RawMessage, fields []string, namespaces bool) error {
	headings := []string{"RUN", "PIPELINE", "STATE", "AGE"}
	if namespaces {
		headings = append([]string{"NAMESPACE"}, headings...)
	}
	// The fields' names are the users' own, so they stay as they are.
	rows := [][]string{append(headings, fields...)}
	for _, item := range items {
		run := &skiff.Run{}
		if err := decode(item, run); err != nil {
			return err
		}
		row := []string{run.Name, run.Spec.PipelineName, query.StateOf(run.Status.State), view.Duration(time.Since(run.CreationTimestamp))}
		if namespaces {
			row = append([]string{run.Namespace}, row...)
		}
		for _, field := range fields {
			cell := "-"
			if value := query.ValueOf(run, field); value != nil {
				cell = short(value)
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	return printLines(a.Out, rows)
}
