package portable_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/portable"
	"github.com/skiff-ml/skiff/store"
)

// TestContentsLater: a run can come first and its artifacts' contents later.
func TestContentsLater(t *testing.T) {
	from, to := newHome(t), newHome(t)
	run := from.ran(t, nil)
	_, err := to.take(t, portable.ImportRequest{}, from.export(t, portable.ExportRequest{Run: run.Name}))
	must(t, err)
	a, err := store.GetAs[*skiff.Artifact](t.Context(), to.store, store.Key{Kind: artifacts, Namespace: space, Name: run.Name + "-step-1-report"})
	must(t, err)
	if to.repository.Exists(space, a.Spec.URI) || a.Status.Digest == "" {
		t.Errorf("without contents: %+v", a)
	}
	report, err := to.take(t, portable.ImportRequest{}, from.export(t, portable.ExportRequest{Run: run.Name, Artifacts: true}))
	must(t, err)
	if report.Artifacts != 2 || len(report.Created) != 0 || !to.repository.Exists(space, a.Spec.URI) {
		t.Errorf("with contents: %+v", report)
	}
}

// TestContentsAgain: what retention removed comes back with its bundle, also where
// the daemon dies just before or after the commit, and not while it is removed.
func TestContentsAgain(t *testing.T) {
	from := newHome(t)
	run := from.ran(t, nil)
	data := from.export(t, portable.ExportRequest{Run: run.Name, Artifacts: true})
	broken := errors.New("broken")
	for _, step := range []string{"", "published", "committed"} {
		t.Run("broken "+step, func(t *testing.T) {
			to := newHome(t)
			_, err := to.take(t, portable.ImportRequest{}, data)
			must(t, err)
			key := store.Key{Kind: artifacts, Namespace: space, Name: run.Name + "-step-1-model"}
			purge := func(p *skiff.Purge) *skiff.Artifact {
				a, err := store.ModifyAs(t.Context(), to.store, key, func(a *skiff.Artifact) error {
					a.Status.Purged = p
					return nil
				})
				must(t, err)
				return a
			}
			uri := purge(&skiff.Purge{At: time.Now(), Reason: skiff.RetainMaxRuns, Removing: true}).Spec.URI
			must(t, to.repository.Delete(t.Context(), space, uri))
			if _, err = to.take(t, portable.ImportRequest{}, data); err == nil || !strings.Contains(err.Error(), "are being removed") {
				t.Errorf("while it is removed: %v", err)
			}
			purge(&skiff.Purge{At: time.Now(), Reason: skiff.RetainMaxRuns, RemovedAt: time.Now()})
			copied := filepath.Join(t.TempDir(), "state")
			to.Between(func(at string) error {
				if at != step {
					return nil
				}
				if out, err := exec.CommandContext(t.Context(), "cp", "-a", to.dir, copied).CombinedOutput(); err != nil {
					t.Errorf("cp: %v %s", err, out)
				}
				return broken
			})
			report, err := to.take(t, portable.ImportRequest{}, data)
			homes := map[string]*home{"here": to}
			if step == "" {
				must(t, err)
				if report.Artifacts != 1 || len(report.Created) != 0 {
					t.Errorf("got %+v", report)
				}
			} else {
				if !errors.Is(err, broken) {
					t.Fatalf("got %v", err)
				}
				homes["death"] = openHome(t, copied, func(*portable.Config) {})
			}
			for name, h := range homes {
				a, err := store.GetAs[*skiff.Artifact](t.Context(), h.store, key)
				must(t, err)
				whole := step != "published"
				if there := h.repository.Exists(space, uri); there != whole || (a.Gone() == "") != whole {
					t.Errorf("%s: there: %v, want %v; gone: %q", name, there, whole, a.Gone())
				}
				h.clean(t)
			}
		})
	}
}
