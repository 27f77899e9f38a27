package retention_test

import (
	"fmt"
	"testing"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline"
	"github.com/skiff-ml/skiff/store"
)

// BenchmarkLook is a look at the bounds of a namespace with very many artifacts,
// none of which is over them: by age it reads a page, by bytes all.
func BenchmarkLook(b *testing.B) {
	const artifacts = 100_000
	w := openWorld(b, b.TempDir())
	defer w.close()
	for i := 0; i < artifacts; {
		var ops []store.Op
		for range 1000 {
			name := fmt.Sprintf("a-%07d", i)
			i++
			ops = append(ops, store.Op{Verb: store.Create, Kind: pipeline.Artifacts, Object: &skiff.Artifact{
				ObjectMeta: core.ObjectMeta{Name: name, Namespace: space},
				Spec:       skiff.ArtifactSpec{URI: "minio://bucket/run/" + name, Run: "run"}, Status: skiff.ArtifactStatus{Size: 1},
			}})
		}
		w.commit(ops...)
	}
	for _, retain := range []string{"max-age=30d", "max-bytes=1GiB"} {
		b.Run(retain, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if went := w.purge(retain); len(went) > 0 {
					b.Fatalf("went: %v", went)
				}
			}
		})
	}
}
