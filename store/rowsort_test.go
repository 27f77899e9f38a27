package store

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestRowSorter: rows come back in order, each once, whether they are kept in
// memory or in files, and no file is left.
func TestRowSorter(t *testing.T) {
	folder := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.SliceOfDistinct(rapid.SliceOfN(rapid.Byte(), 1, 12), func(row []byte) string { return string(row) }).Draw(t, "rows")
		sorter := &rowSorter{folder: folder, limit: rapid.SampledFrom([]int{1, 20, 100, 1 << 20}).Draw(t, "limit")}
		for _, row := range rows {
			if err := sorter.add(row); err != nil {
				t.Fatal(err)
			}
		}
		next, err := sorter.merge()
		if err != nil {
			t.Fatal(err)
		}
		got := [][]byte{}
		for {
			row, err := next()
			if err != nil {
				t.Fatal(err)
			}
			if row == nil {
				break
			}
			got = append(got, row)
		}
		slices.SortFunc(rows, bytes.Compare)
		if diff := cmp.Diff(rows, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if err := sorter.close(); err != nil {
			t.Fatal(err)
		}
	})
	left, err := os.ReadDir(folder)
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}
