package query_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/query"
)

func values(pairs map[string]string) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for name, value := range pairs {
		out[name] = json.RawMessage(value)
	}
	return out
}

func TestParseCondition(t *testing.T) {
	run := &skiff.Run{Spec: skiff.RunSpec{Parameters: values(map[string]string{"lr": "0.01", "opt": `"adam"`, "n": `"8"`, "list": "[1,2]", "on": "true"})},
		Status: skiff.RunStatus{Metrics: values(map[string]string{"loss": "0.25", "a/loss": "0.5", "acc": "0.9"})}}
	for text, want := range map[string]bool{
		"param:lr>0.001": true, "param:lr > 0.01": false, "param:lr>=0.01": true, "param:lr=1e-2": true, "param:lr==0.01": true,
		"param:lr<0.01": false, "param:lr<=0.01": true, "param:lr!=0.01": false, "parameter:lr=0.01": true,
		"param:opt=adam": true, `param:opt="adam"`: true, "param:opt!=sgd": true, "param:opt<b": true, "param:opt>5": false,
		"param:n=8": true, "param:n>7": false, "param:list=[1,2]": true, "param:list=[1, 2]": true, "param:on=true": true, "param:on>false": false,
		"param:none=1": false, "param:none!=1": false,
		"metric:acc>0.5": true, "metric:loss<0.3": true, "metric:a/loss<0.3": false, "metric:a/loss=0.5": true,
		"metric:none>0": false,
	} {
		p, err := query.ParseCondition(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := p.Holds(run); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{"", "param:lr", "lr>1", "metric:>1", "param:lr>", "param:lr!1", ">1", "tag:x=1"} {
		if p, err := query.ParseCondition(text); err == nil {
			t.Errorf("%q: %+v", text, p)
		}
	}
}

func FuzzParseCondition(f *testing.F) {
	f.Add("param:lr>0.01")
	f.Add("metric:a/b!=\"x\"")
	run := &skiff.Run{Spec: skiff.RunSpec{Parameters: values(map[string]string{"lr": "0.01"})}}
	f.Fuzz(func(_ *testing.T, text string) {
		if p, err := query.ParseCondition(text); err == nil {
			p.Holds(run)
		}
	})
}

func TestParseOrder(t *testing.T) {
	for text, want := range map[string]bool{
		"metric:accuracy": true, "metric:loss": false, "metric:steps": true, "metric:loss:desc": true, "metric:accuracy:asc": false,
		"param:lr": false, "param:lr:desc": true,
	} {
		field, descending, err := query.ParseOrder(text)
		if err != nil || descending != want || strings.Count(field, ":") != 1 {
			t.Errorf("%s: %s %v %v", text, field, descending, err)
		}
	}
	for _, text := range []string{"", "accuracy", "metric:", "metric::asc"} {
		if field, _, err := query.ParseOrder(text); err == nil {
			t.Errorf("%q: %s", text, field)
		}
	}
}
