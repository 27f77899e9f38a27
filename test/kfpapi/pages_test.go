package kfpapi_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/store"
)

// runsPage is a list's answer.
type runsPage struct {
	Runs []struct {
		ID string `json:"run_id"`
	} `json:"runs"`
	Next  string `json:"next_page_token"`
	Total int    `json:"total_size"`
}

func (p runsPage) ids() string {
	var ids []string
	for _, r := range p.Runs {
		ids = append(ids, r.ID)
	}
	return strings.Join(ids, " ")
}

// fleet stores runs r00, r01, …, a second apart, with what lists go by.
func fleet(t testing.TB, a *api, count int) {
	t.Helper()
	var runs []core.Object
	for i := range count {
		runs = append(runs, numbered(i))
	}
	a.keep(t, pipeline.Runs, runs...)
}

func numbered(i int) *skiff.Run {
	return &skiff.Run{
		ObjectMeta: core.ObjectMeta{Name: fmt.Sprintf("r%02d", i), Namespace: "default", CreationTimestamp: now.Add(time.Duration(i) * time.Second)},
		Spec: skiff.RunSpec{DisplayName: fmt.Sprintf("train %c", 'a'+i%3), Description: []string{"", "odd"}[i%2], Archived: i%4 == 3,
			Experiment: []string{"e1", "e2"}[i%2], Parameters: map[string]json.RawMessage{"lr": json.RawMessage(fmt.Sprint(i % 5))}},
		Status: skiff.RunStatus{State: []skiff.State{skiff.StateSucceeded, skiff.StateFailed, skiff.StateRunning}[i%3],
			FinishedAt: now.Add(time.Duration(100-i) * time.Second), Metrics: map[string]json.RawMessage{"acc": json.RawMessage(fmt.Sprintf("%.2f", float64(i)/100))}},
	}
}

// TestPagesAreStable: in every order, with and without a filter, pages go on
// where they ended although objects come and go in between: what was there all
// the time comes once, in order.
func TestPagesAreStable(t *testing.T) {
	const shown = `{"predicates":[{"operation":"NOT_EQUALS","key":"storage_state","string_value":"ARCHIVED"}]}`
	const odd = `{"predicates":[{"operation":"EQUALS","key":"description","string_value":"odd"}]}`
	for _, sort := range []string{"", "created_at desc", "name", "display_name desc", "state", "finished_at", "finished_at desc", "metric:acc", "metric:acc desc", "parameter:lr desc", "run_id"} {
		for _, filter := range []string{"", shown, odd} {
			t.Run(sort+" "+filter, func(t *testing.T) {
				a := newAPI(t, nil)
				fleet(t, a, 20)
				query := "/apis/v2beta1/runs?page_size=4&sort_by=" + url.QueryEscape(sort) + "&filter=" + url.QueryEscape(filter)
				var whole runsPage
				decode(t, a.do("GET", strings.Replace(query, "page_size=4", "page_size=100", 1), nil, ""), &whole)
				// These are deleted and made again between the pages.
				gone := map[string]bool{"r05": true, "r08": true, "r15": true}
				var got, want []string
				for _, r := range whole.Runs {
					if !gone[r.ID] {
						want = append(want, r.ID)
					}
				}
				for n, token := 0, ""; n < 50; n++ {
					var page runsPage
					decode(t, a.do("GET", query+"&page_token="+url.QueryEscape(token), nil, ""), &page)
					for _, r := range page.Runs {
						if !gone[r.ID] && r.ID < "r50" {
							got = append(got, r.ID)
						}
					}
					if token = page.Next; token == "" {
						break
					}
					for id := range gone {
						key := store.Key{Kind: pipeline.Runs, Namespace: "default", Name: id}
						if n%2 == 0 {
							_, err := a.store.Commit(t.Context(), store.Op{Verb: store.Delete, Kind: pipeline.Runs, Key: key})
							if err != nil {
								t.Fatal(err)
							}
						} else {
							var i int
							if _, err := fmt.Sscanf(id, "r%d", &i); err != nil {
								t.Fatal(err)
							}
							a.keep(t, pipeline.Runs, numbered(i))
						}
					}
					a.keep(t, pipeline.Runs, numbered(50+n))
				}
				if diff := gocmp.Diff(want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestTokensAreOneListsOnly: a token says the order and the filter itself, and is
// refused where the request gives others, or is for another list.
func TestTokensAreOneListsOnly(t *testing.T) {
	a := newAPI(t, nil)
	fleet(t, a, 10)
	a.keep(t, pipeline.Experiments, &skiff.Experiment{ObjectMeta: core.ObjectMeta{Name: "e1", Namespace: "default"}, Spec: skiff.ExperimentSpec{DisplayName: "e1"}})
	filter := url.QueryEscape(`{"predicates":[{"operation":1,"key":"state","stringValue":"SUCCEEDED"}]}`)
	const runs = "/apis/v2beta1/runs"
	var page runsPage
	decode(t, a.do("GET", runs+"?page_size=2&sort_by=name%20desc&filter="+filter, nil, ""), &page)
	if page.Next == "" {
		t.Fatal("there is no second page")
	}
	token := "page_token=" + url.QueryEscape(page.Next)
	for _, row := range []struct {
		name, path string
		want       int
	}{
		{"the token alone", runs + "?" + token, 200},
		{"in camelCase", runs + "?pageToken=" + url.QueryEscape(page.Next), 200},
		{"with the same order and filter", runs + "?sort_by=name%20desc&filter=" + filter + "&" + token, 200},
		{"with another size", runs + "?page_size=7&" + token, 200},
		{"with another order", runs + "?sort_by=name&" + token, 400},
		{"with another field", runs + "?sort_by=created_at%20desc&" + token, 400},
		{"with another filter", runs + "?filter=" + url.QueryEscape(`{"predicates":[]}`) + "&" + token, 400},
		{"in an experiment", runs + "?experiment_id=e1&" + token, 400},
		{"in another namespace", runs + "?namespace=other&" + token, 400},
		{"of another kind", "/apis/v2beta1/experiments?" + token, 400},
		{"cut", runs + "?" + token[:len(token)-3], 400},
		{"changed", runs + "?page_token=" + url.QueryEscape("f"+page.Next[1:]), 400},
	} {
		w := a.do("GET", row.path, nil, "")
		if w.Code != row.want || (row.want == 400 && !strings.Contains(w.Body.String(), "page_token")) {
			t.Errorf("%s: %d %.300s", row.name, w.Code, w.Body)
		}
	}
}

// TestFilters: every operation on fields of every kind, as the wire has them.
func TestFilters(t *testing.T) {
	a := newAPI(t, nil)
	fleet(t, a, 6)
	at := func(seconds int) string { return now.Add(time.Duration(seconds) * time.Second).Format(time.RFC3339) }
	const all = "r00 r01 r02 r03 r04 r05"
	for _, row := range []struct{ predicate, want string }{
		{`"operation":"EQUALS","key":"name","string_value":"train a"`, "r00 r03"},
		{`"operation":1,"key":"display_name","stringValue":"train a"`, "r00 r03"},
		{`"operation":"EQUALS","key":"name","string_value":"Train a"`, ""},
		{`"operation":"NOT_EQUALS","key":"name","string_value":"train a"`, "r01 r02 r04 r05"},
		{`"operation":"GREATER_THAN","key":"name","string_value":"train a"`, "r01 r02 r04 r05"},
		{`"operation":"GREATER_THAN_EQUALS","key":"name","string_value":"train b"`, "r01 r02 r04 r05"},
		{`"operation":"LESS_THAN","key":"name","string_value":"train b"`, "r00 r03"},
		{`"operation":"LESS_THAN_EQUALS","key":"name","string_value":"train b"`, "r00 r01 r03 r04"},
		{`"operation":"IN","key":"name","string_values":{"values":["train a","train c"]}`, "r00 r02 r03 r05"},
		{`"operation":8,"key":"name","stringValues":{"values":[]}`, ""},
		{`"operation":"IS_SUBSTRING","key":"name","string_value":"AIN B"`, "r01 r04"},
		{`"operation":9,"key":"description","stringValue":"d"`, "r01 r03 r05"},
		{`"operation":1,"key":"run_id","string_value":"r02"`, "r02"},
		{`"operation":8,"key":"id","string_values":{"values":["r02","r04","none"]}`, "r02 r04"},
		{`"operation":1,"key":"experiment_id","string_value":"e2"`, "r01 r03 r05"},
		{`"operation":2,"key":"experiment_id","string_value":"e2"`, "r00 r02 r04"},
		{`"operation":1,"key":"state","string_value":"failed"`, "r01 r04"},
		{`"operation":2,"key":"status","string_value":"FAILED"`, "r00 r02 r03 r05"},
		{`"operation":8,"key":"state","string_values":{"values":["FAILED","RUNNING"]}`, "r01 r02 r04 r05"},
		{`"operation":1,"key":"storage_state","string_value":"ARCHIVED"`, "r03"},
		{`"operation":2,"key":"storage_state","string_value":"ARCHIVED"`, "r00 r01 r02 r04 r05"},
		{`"operation":1,"key":"storage_state","string_value":"STORAGE_STATE_UNSPECIFIED"`, ""},
		{`"operation":1,"key":"namespace","string_value":"default"`, all},
		{`"operation":1,"key":"recurring_run_id","string_value":""`, all},
		{`"operation":1,"key":"created_at","timestamp_value":"` + at(2) + `"`, "r02"},
		{`"operation":3,"key":"created_at","timestampValue":"` + at(2) + `"`, "r03 r04 r05"},
		{`"operation":5,"key":"created_at","timestamp_value":"` + at(2) + `"`, "r02 r03 r04 r05"},
		{`"operation":6,"key":"created_at","timestamp_value":"` + at(2) + `"`, "r00 r01"},
		{`"operation":7,"key":"created_at","long_value":"` + fmt.Sprint(now.Unix()+2) + `"`, "r00 r01 r02"},
		{`"operation":7,"key":"created_at","long_value":"9223372036854775807"`, all},
		{`"operation":5,"key":"created_at","long_value":"-9223372036854775808"`, all},
		{`"operation":8,"key":"created_at","long_values":{"values":["` + fmt.Sprint(now.Unix()+1) + `",` + fmt.Sprint(now.Unix()+3) + `]}`, "r01 r03"},
		{`"operation":3,"key":"finished_at","timestamp_value":"` + at(97) + `"`, "r00 r01 r02"},
		{`"operation":1,"key":"metric:acc","string_value":"0.02"`, "r02"},
		{`"operation":2,"key":"metric:acc","string_value":"2e-2"`, "r00 r01 r03 r04 r05"},
		{`"operation":3,"key":"metric:acc","string_value":"0.02"`, "r03 r04 r05"},
		{`"operation":5,"key":"metric:acc","string_value":"0.02"`, "r02 r03 r04 r05"},
		{`"operation":6,"key":"metric:acc","string_value":"0.02"`, "r00 r01"},
		{`"operation":7,"key":"metric:acc","int_value":1`, all},
		{`"operation":8,"key":"metric:acc","string_values":{"values":["0.01","0.05"]}`, "r01 r05"},
		{`"operation":9,"key":"metric:acc","string_value":".04"`, "r04"},
		{`"operation":1,"key":"parameter:lr","int_value":3`, "r03"},
		{`"operation":1,"key":"param:lr","long_value":"0"`, "r00 r05"},
		{`"operation":8,"key":"parameter:lr","int_values":{"values":[1,2]}`, "r01 r02"},
		{`"operation":1,"key":"parameter:none","int_value":3`, ""},
		{`"operation":2,"key":"metric:none","int_value":3`, ""},
		// Refused.
		{`"operation":8,"key":"name","string_value":"x"`, "400"},
		{`"operation":1,"key":"name","string_values":{"values":["x"]}`, "400"},
		{`"operation":9,"key":"created_at","timestamp_value":"` + at(0) + `"`, "400"},
		{`"operation":9,"key":"name","int_value":1`, "400"},
		{`"operation":1,"key":"name","int_value":1`, "400"},
		{`"operation":1,"key":"created_at","string_value":"yesterday"`, "400"},
		{`"operation":1,"key":"created_at","timestamp_value":"yesterday"`, "400"},
		{`"operation":"LIKE","key":"name","string_value":"x"`, "400"},
		{`"operation":0,"key":"name","string_value":"x"`, "400"},
		{`"key":"name","string_value":"x"`, "400"},
		{`"operation":1,"key":"metric:","string_value":"x"`, "400"},
		{`"operation":1,"key":"metric:acc","timestamp_value":"` + at(0) + `"`, "400"},
		{`"operation":1,"key":"name","string_value":"x","colour":1`, "400"},
		{`"operation":1,"key":"name","int_value":4294967296`, "400"},
	} {
		for _, sort := range []string{"created_at", "run_id", "name"} {
			path := "/apis/v2beta1/runs?sort_by=" + sort + "&filter=" + url.QueryEscape(`{"predicates":[{`+row.predicate+`}]}`)
			w := a.do("GET", path, nil, "")
			if row.want == "400" {
				if w.Code != 400 || !strings.Contains(w.Body.String(), `"message":"filter: `) {
					t.Errorf("%s: %d %.200s", row.predicate, w.Code, w.Body)
				}
				continue
			}
			var page runsPage
			decode(t, w, &page)
			got := page.ids()
			if sort == "name" { // another order of the same
				got = strings.Join(sortedFields(got), " ")
			}
			if got != row.want || page.Total != len(page.Runs) {
				t.Errorf("%s by %s: %q of %d, want %q", row.predicate, sort, got, page.Total, row.want)
			}
		}
	}
}
