package process

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/skiff-ml/skiff/runtime"
)

// TestLedger: whatever was added and not removed is there when the ledger is
// opened again, also after a crash that cut the last line off, and nothing else.
func TestLedger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "ledger")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir) //nolint:errcheck // A test's own.
		open := func() (*ledger, map[string]saved) {
			l, all, err := openLedger(dir, func(err error) { t.Error(err) })
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]saved{}
			for _, s := range all {
				got[s.spec.Name] = s
			}
			return l, got
		}
		l, _ := open()
		model := map[string]string{} // group by name
		names := rapid.SampledFrom([]string{"a", "b", "c", `d"{`, "é"})
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			name := names.Draw(t, "name")
			switch rapid.SampledFrom([]string{"add", "remove", "crash", "open"}).Draw(t, "step") {
			case "add":
				group := fmt.Sprint("g", rapid.IntRange(0, 9).Draw(t, "group"))
				spec, err := json.Marshal(runtime.ContainerSpec{Name: name})
				if err != nil {
					t.Fatal(err)
				}
				if err := l.add(name, spec, []string{group}); err != nil {
					t.Fatal(err)
				}
				model[name] = group
			case "remove":
				if err := l.remove(name); err != nil {
					t.Fatal(err)
				}
				delete(model, name)
			case "crash":
				f, err := os.OpenFile(filepath.Join(dir, ledgerFile), os.O_WRONLY|os.O_APPEND, 0)
				if err != nil {
					t.Fatal(err)
				}
				_, err = f.WriteString(`{"spec":{"Name":"` + name)
				if err2 := f.Close(); err != nil || err2 != nil {
					t.Fatal(err, err2)
				}
				fallthrough
			case "open":
				var got map[string]saved
				if l, got = open(); len(got) != len(model) {
					t.Fatalf("it has %v, want %v", got, model)
				}
				for name, group := range model {
					if !slices.Equal(got[name].groups, []string{group}) {
						t.Fatalf("%s has %v, want %s", name, got[name], group)
					}
				}
			}
		}
	})
}

// TestLedgerKeepsWhatItCannotRead: a line that says nothing to this release is
// reported, takes nothing else with it, and is still there for another one.
func TestLedgerKeepsWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	const odd = `{"spec":{"Name":7}}` + "\n" + `{"spec":{"Name":"../x"}}` + "\n" + "nonsense\n"
	whole := odd + `{"spec":{"Name":"a"}}` + "\n"
	if err := os.WriteFile(filepath.Join(dir, ledgerFile), []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		told := 0
		l, all, err := openLedger(dir, func(error) { told++ })
		if err != nil || told != 3 || len(all) != 1 || all[0].spec.Name != "a" {
			t.Fatalf("%d lines were reported, it has %+v, %v", told, all, err)
		}
		if data, err := os.ReadFile(l.path); err != nil || string(data) != whole {
			t.Fatalf("the ledger became %q, %v", data, err)
		}
	}
}

// TestLedgerStaysSmall: what came and went takes no room for ever.
func TestLedgerStaysSmall(t *testing.T) {
	dir := t.TempDir()
	l, _, err := openLedger(dir, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	spec, err := json.Marshal(runtime.ContainerSpec{Name: "stays"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.add("stays", spec, nil); err != nil {
		t.Fatal(err)
	}
	for range slack {
		if err := l.add("goes", []byte(`{"Name":"goes"}`), nil); err != nil {
			t.Fatal(err)
		}
		if err := l.remove("goes"); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(l.path)
	if err != nil || info.Size() > slack*64 {
		t.Errorf("it has %d bytes, %v", info.Size(), err)
	}
	_, all, err := openLedger(dir, func(err error) { t.Error(err) })
	if err != nil || len(all) != 1 || all[0].spec.Name != "stays" || all[0].hash != hashOf(spec) {
		t.Errorf("it has %+v, %v", all, err)
	}
}
