package view_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/server/view"
)

func TestFilter(t *testing.T) {
	run := &view.Run{Parameters: values(map[string]string{"lr": "0.01", "opt": `"adam"`, "n": `"8"`, "list": "[1, 2]", "on": "true"}),
		Metrics: []view.Metric{metric("a", "loss", "0.5"), metric("b", "loss", "0.25"), metric("b", "acc", "0.9")}}
	for text, want := range map[string]bool{
		"param:lr>0.001": true, "param:lr > 0.01": false, "param:lr>=0.01": true, "param:lr=1e-2": true, "param:lr==0.01": true,
		"param:lr<0.01": false, "param:lr<=0.01": true, "param:lr!=0.01": false,
		"param:opt=adam": true, `param:opt="adam"`: true, "param:opt!=sgd": true, "param:opt<b": true, "param:opt>5": false,
		"param:n=8": true, "param:n>7": false, "param:list=[1,2]": true, "param:on=true": true, "param:on>false": false,
		"param:none=1": false, "param:none!=1": false,
		"metric:acc>0.5": true, "metric:loss<0.3": true, "metric:a/loss<0.3": false, "metric:a/loss=0.5": true,
		"metric:none>0": false,
	} {
		f, err := view.ParseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := f.Match(run); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{"", "param:lr", "lr>1", "metric:>1", "param:lr>", "param:lr!1", ">1", "tag:x=1"} {
		if f, err := view.ParseFilter(text); err == nil {
			t.Errorf("%q: %+v", text, f)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	f.Add("param:lr>0.01")
	f.Add("metric:a/b!=\"x\"")
	run := &view.Run{Parameters: values(map[string]string{"lr": "0.01"})}
	f.Fuzz(func(_ *testing.T, text string) {
		if filter, err := view.ParseFilter(text); err == nil {
			filter.Match(run)
		}
	})
}

func TestParseOrder(t *testing.T) {
	for text, descending := range map[string]bool{
		"metric:accuracy": true, "metric:loss": false, "metric:steps": true, "metric:loss:desc": true, "metric:accuracy:asc": false,
		"param:lr": false, "param:lr:desc": true,
	} {
		o, err := view.ParseOrder(text)
		if err != nil || o.Descending != descending || strings.Contains(o.Field.Name, ":") {
			t.Errorf("%s: %+v %v", text, o, err)
		}
	}
	for _, text := range []string{"", "accuracy", "metric:", "metric::asc"} {
		if o, err := view.ParseOrder(text); err == nil {
			t.Errorf("%q: %+v", text, o)
		}
	}
}

// TestSelection: the same runs come out as from sorting all, however few are held.
func TestSelection(t *testing.T) {
	order, err := view.ParseOrder("metric:loss")
	if err != nil {
		t.Fatal(err)
	}
	const n = 1000
	var all []*view.Run
	for i := range n {
		run := &view.Run{RunID: fmt.Sprint(i)}
		if i%10 != 0 {
			run.Metrics = []view.Metric{metric("t", "loss", fmt.Sprint((i*7919)%97))}
		}
		all = append(all, run)
	}
	whole := view.NewSelection(&order, 0)
	for _, run := range all {
		whole.Add(run)
	}
	sorted := whole.Runs()
	if len(sorted) != n || len(sorted[n-1].Metrics) != 0 || whole.Dropped != 0 {
		t.Fatalf("%d runs, %d dropped", len(sorted), whole.Dropped)
	}
	for _, limit := range []int{1, 7, 100, n, 2 * n} {
		s := view.NewSelection(&order, limit)
		for _, run := range all {
			s.Add(run)
			if s.Full() {
				t.Fatal("an order is never full")
			}
		}
		got := s.Runs()
		if len(got) != min(limit, n) || s.Dropped != n-len(got) {
			t.Fatalf("limit %d: %d runs, %d dropped", limit, len(got), s.Dropped)
		}
		for i := range got {
			if got[i] != sorted[i] {
				t.Fatalf("limit %d: place %d has %s, want %s", limit, i, got[i].RunID, sorted[i].RunID)
			}
		}
	}
	s := view.NewSelection(nil, 2)
	for _, run := range all[:3] {
		s.Add(run)
	}
	if got := s.Runs(); !s.Full() || len(got) != 2 || got[0].RunID != "0" || s.Dropped != 1 {
		t.Errorf("%v, %d dropped", got, s.Dropped)
	}
}
