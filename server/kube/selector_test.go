package kube

import (
	"testing"
)

func TestSelector(t *testing.T) {
	labels := map[string]string{"app": "train", "tier": "gpu", "skiff.dev/run": "r1", "empty": ""}
	for text, want := range map[string]bool{
		"":                            true,
		"app=train":                   true,
		"app==train":                  true,
		"app = train , tier = gpu":    true,
		"app=serve":                   false,
		"app!=serve":                  true,
		"app!=train":                  false,
		"gone!=x":                     true,
		"app in (serve, train)":       true,
		"app in (serve)":              false,
		"app notin (serve)":           true,
		"app notin (serve,train)":     false,
		"gone notin (a)":              true,
		"app":                         true,
		"gone":                        false,
		"!gone":                       true,
		"!app":                        false,
		"empty=":                      true,
		"skiff.dev/run=r1,app":        true,
		"app in (train),tier in(gpu)": true,
	} {
		selector, err := ParseSelector(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := selector.Matches(labels); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{",", "a,,b", "=x", "!=x", "a b", "a near (b)", "a in b", "a in (b", "!", "in (a)"} {
		if selector, err := ParseSelector(text); err == nil {
			t.Errorf("%q is accepted: %+v", text, selector)
		}
	}
}

func FuzzSelector(f *testing.F) {
	f.Add("a=b,c in (d,e),!f,g notin (h)")
	f.Add("((((")
	f.Add("a in ((,)),=,!!")
	f.Fuzz(func(t *testing.T, text string) {
		selector, err := ParseSelector(text)
		if err != nil {
			return
		}
		// What parses has usable keys, so a match is only a matter of labels.
		for _, r := range selector {
			if r.Key == "" || (r.Op == "=" && len(r.Values) != 1) {
				t.Errorf("%q: %+v", text, r)
			}
		}
		selector.Matches(map[string]string{"a": "b"})
	})
}

func TestMergePatch(t *testing.T) {
	target := map[string]any{"a": "b", "c": map[string]any{"d": "e", "f": "g"}, "l": []any{"x"}}
	got := mergePatch(target, map[string]any{"a": "z", "c": map[string]any{"f": nil, "n": map[string]any{"m": 1}}, "l": []any{}, "gone": nil})
	want := map[string]any{"a": "z", "c": map[string]any{"d": "e", "n": map[string]any{"m": 1}}, "l": []any{}}
	if !equalJSON(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
