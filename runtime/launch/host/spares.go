package host

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// Spares keeps files or folders ready that will be wanted: to make one can take
// a file system a millisecond, to give one that is there its name takes none. They
// are made in the background, the first when the first is asked for. It is safe
// for concurrent use.
type Spares struct {
	dir   string
	count int
	make  func(path string) error

	mu      sync.Mutex
	ready   []string
	made    int
	begun   bool
	filling bool
	closed  bool
	filler  sync.WaitGroup
}

// NewSpares keeps count of what make makes in dir, which is theirs alone and is
// made, or emptied, at the first use.
func NewSpares(dir string, count int, make func(path string) error) *Spares {
	return &Spares{dir: dir, count: count, make: make}
}

// Take hands a spare to place, which is to move it to where it is wanted. False
// where there is none, or place has failed: the caller makes its own.
func (s *Spares) Take(place func(path string) error) bool {
	s.mu.Lock()
	spare := ""
	if n := len(s.ready); n > 0 {
		spare, s.ready = s.ready[n-1], s.ready[:n-1]
	}
	if !s.filling && !s.closed {
		s.filling = true
		s.filler.Go(s.fill)
	}
	s.mu.Unlock()
	if spare == "" {
		return false
	}
	if place(spare) == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = append(s.ready, spare)
	return false
}

// fill makes spares until there are enough. One that cannot be made ends it, until
// the next is asked for.
func (s *Spares) fill() {
	for {
		s.mu.Lock()
		if s.closed || len(s.ready) >= s.count {
			s.filling = false
			s.mu.Unlock()
			return
		}
		fresh := !s.begun
		s.begun = true
		s.made++
		path := filepath.Join(s.dir, strconv.Itoa(s.made))
		s.mu.Unlock()
		err := error(nil)
		if fresh {
			if err = os.RemoveAll(s.dir); err == nil { // of a daemon before this one
				err = os.MkdirAll(s.dir, 0o700)
			}
		}
		if err == nil {
			err = s.make(path)
		}
		s.mu.Lock()
		if err != nil {
			s.begun = s.begun && !fresh
			s.filling = false
			s.mu.Unlock()
			return
		}
		s.ready = append(s.ready, path)
		s.mu.Unlock()
	}
}

// Close ends the work in the background. What is ready stays on disk for nobody.
func (s *Spares) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.filler.Wait()
}
