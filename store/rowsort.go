package store

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

const (
	// sortBytes is how much of the rows is sorted in memory at once.
	sortBytes = 64 << 20
	// runBuffer is what is read ahead of each sorted run.
	runBuffer = 256 << 10
)

// rowSorter puts any number of rows in order, in files without names where they
// are many. Rows are distinct, as keys of a bucket are.
type rowSorter struct {
	// folder is where the files are.
	folder string
	limit  int
	// arena holds the rows that are in no file yet, one behind the other, ends
	// where each of them ends.
	arena []byte
	ends  []int
	runs  []*os.File
}

// add takes a copy of a row in.
func (r *rowSorter) add(row []byte) error {
	if len(r.arena)+len(row) > r.limit && len(r.ends) > 0 {
		if err := r.spill(); err != nil {
			return err
		}
	}
	if r.arena == nil {
		r.arena = make([]byte, 0, r.limit)
	}
	r.arena = append(r.arena, row...)
	r.ends = append(r.ends, len(r.arena))
	return nil
}

// sorted are the rows of the arena, in order.
func (r *rowSorter) sorted() [][]byte {
	rows, begin := make([][]byte, 0, len(r.ends)), 0
	for _, end := range r.ends {
		rows, begin = append(rows, r.arena[begin:end]), end
	}
	slices.SortFunc(rows, bytes.Compare)
	return rows
}

// spill writes the arena to a file of its own, sorted.
func (r *rowSorter) spill() error {
	f, err := os.CreateTemp(r.folder, ".rows-*")
	if err != nil {
		return fmt.Errorf("sort index rows: %w", err)
	}
	r.runs = append(r.runs, f)
	// Nothing of it is to be left when the process ends, however it does.
	if err := os.Remove(f.Name()); err != nil {
		return fmt.Errorf("sort index rows: %w", err)
	}
	w := bufio.NewWriterSize(f, runBuffer)
	var length [binary.MaxVarintLen32]byte
	for _, row := range r.sorted() {
		_, err := w.Write(length[:binary.PutUvarint(length[:], uint64(len(row)))])
		if err == nil {
			_, err = w.Write(row)
		}
		if err != nil {
			return fmt.Errorf("sort index rows: %w", err)
		}
	}
	r.arena, r.ends = r.arena[:0], r.ends[:0]
	if err := w.Flush(); err != nil {
		return fmt.Errorf("sort index rows: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("sort index rows: %w", err)
	}
	return nil
}

// close lets go of the files.
func (r *rowSorter) close() error {
	var err error
	for _, f := range r.runs {
		err = errors.Join(err, f.Close())
	}
	r.runs = nil
	return err
}

// merge returns what yields all rows in order, nil behind the last; a row is the
// receiver's. Nothing may be added any more.
func (r *rowSorter) merge() (next func() ([]byte, error), err error) {
	last := r.sorted()
	if len(r.runs) == 0 {
		return func() ([]byte, error) {
			if len(last) == 0 {
				return nil, nil
			}
			row := last[0]
			last = last[1:]
			return row, nil
		}, nil
	}
	m := &rowMerge{&rowRun{rows: last}}
	for _, f := range r.runs {
		*m = append(*m, &rowRun{file: bufio.NewReaderSize(f, runBuffer)})
	}
	live := (*m)[:0]
	for _, run := range *m {
		if err := run.advance(); err != nil {
			return nil, err
		}
		if run.row != nil {
			live = append(live, run)
		}
	}
	*m = live
	heap.Init(m)
	return m.next, nil
}

// rowRun is one sorted run: rows in memory, or in a file.
type rowRun struct {
	rows [][]byte
	file *bufio.Reader
	// row is the first one that was not taken yet; nil behind the last.
	row []byte
}

func (r *rowRun) advance() error {
	r.row = nil
	if r.file == nil {
		if len(r.rows) > 0 {
			r.row, r.rows = r.rows[0], r.rows[1:]
		}
		return nil
	}
	length, err := binary.ReadUvarint(r.file)
	if errors.Is(err, io.EOF) {
		return nil
	}
	row := make([]byte, length)
	if err == nil {
		_, err = io.ReadFull(r.file, row)
	}
	if err != nil {
		return fmt.Errorf("sort index rows: read them back: %w", err)
	}
	r.row = row
	return nil
}

// rowMerge is a heap of runs by their first rows; implements heap.Interface.
type rowMerge []*rowRun

func (m rowMerge) Len() int           { return len(m) }
func (m rowMerge) Less(i, j int) bool { return bytes.Compare(m[i].row, m[j].row) < 0 }
func (m rowMerge) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }

// Push implements heap.Interface; no run is ever added.
func (m *rowMerge) Push(run any) { *m = append(*m, run.(*rowRun)) }

// Pop implements heap.Interface.
func (m *rowMerge) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}

// next takes the first row of all.
func (m *rowMerge) next() ([]byte, error) {
	if len(*m) == 0 {
		return nil, nil
	}
	first := (*m)[0]
	row := first.row
	if err := first.advance(); err != nil {
		return nil, err
	}
	if first.row == nil {
		heap.Pop(m)
	} else {
		heap.Fix(m, 0)
	}
	return row, nil
}
