package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	bolt "go.etcd.io/bbolt"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
)

const (
	listPage  = 50
	listReads = 200 // pages in one round
)

// runStore fills a large and a small store and measures both.
func runStore(ctx context.Context, b *bench) (err error) {
	large, err := openFleet(ctx, filepath.Join(b.dir, "large", "skiff.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, large.s.Close()) }()
	small, err := openFleet(ctx, filepath.Join(b.dir, "small", "skiff.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, small.s.Close()) }()
	count := b.size(b.objects, 5_000)
	b.say("filling a store with %s objects", thousands(fmt.Sprint(count)))
	begin := time.Now()
	if err := errors.Join(large.fill(ctx, count), small.fill(ctx, 1000)); err != nil {
		return err
	}
	b.note("The large store held %s objects; it was filled in %.0f s.", thousands(fmt.Sprint(count)), time.Since(begin).Seconds())
	info, err := os.Stat(large.path)
	if err != nil {
		return fmt.Errorf("look at the store's file: %w", err)
	}
	b.figure("file with all objects, indexes and change log", megabytes(), noBar(), []float64{float64(info.Size()) / 1e6})
	// Lists first: the writes make the stores larger.
	if err := storeLists(ctx, b, large, small); err != nil {
		return err
	}
	if err := storeWrites(ctx, b, large); err != nil {
		return err
	}
	if err := storeAgainstBatch(ctx, b, large); err != nil {
		return err
	}
	return storeCheck(ctx, b, large)
}

// storeWrites are the figures with a bar on what a second holds.
func storeWrites(ctx context.Context, b *bench, f *fleet) error {
	active := f.ids[len(f.ids)-activeSet:]
	for _, one := range []struct {
		name  string
		write writeFunc
		delay time.Duration
		bar   float64 // writes a second; 0 for a figure that is only shown
	}{
		{"new objects", f.create, 0, 20_000},
		{"updates within 1,000 active objects", f.update(active), 0, 20_000},
		{"random updates over all objects", f.update(f.ids), 0, 4_000},
		{"new objects, 5 ms sync", f.create, slowSync, 0},
		{"updates within 1,000 active objects, 5 ms sync", f.update(active), slowSync, 0},
	} {
		f.delay.Store(int64(one.delay))
		var rates, tails []float64
		for range b.pairs() {
			r, err := round(ctx, storeWriters, b.span(3*time.Second, 40*time.Millisecond), one.write)
			if err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
			rates, tails = append(rates, r.perSecond), append(tails, r.p99)
		}
		f.delay.Store(0)
		rate, tail := noBar(), noBar()
		if one.bar > 0 {
			rate = atLeast(one.bar, perSecond())
		}
		if one.bar >= 20_000 {
			tail = atMost(10, milliseconds())
		}
		b.figure(one.name, perSecond(), rate, rates)
		b.figure(one.name+", p99", milliseconds(), tail, tails)
	}
	return nil
}

// storeLists compares a page of the large store with one of the small, quiet
// and while others write to both with a slow disk.
func storeLists(ctx context.Context, b *bench, large, small *fleet) error {
	page := func(f *fleet, opts store.ListOptions) measure {
		return func(ctx context.Context) (float64, error) { return pageTime(ctx, f, opts) }
	}
	for _, one := range []struct {
		name string
		opts store.ListOptions
	}{
		{"list page of 50, newest first", store.ListOptions{Kind: runKind, Index: byCreated}},
		{"list page of 50 of one namespace, by state, newest first", store.ListOptions{Kind: runKind, Namespace: "default", Index: byState, Prefix: string(skiff.StateSucceeded)}},
		{"list page of 50, by name", store.ListOptions{Kind: runKind, Namespace: "default"}},
	} {
		one.opts.Limit = listPage
		if err := b.compare(ctx, one.name, "at 1,000 objects", microseconds(), ratioAtMost(1.5), page(large, one.opts), page(small, one.opts)); err != nil {
			return err
		}
	}
	opts := store.ListOptions{Kind: runKind, Index: byCreated, Limit: listPage}
	quiet := func(f *fleet) measure {
		return func(ctx context.Context) (v float64, err error) {
			f.delay.Store(int64(slowSync))
			defer f.delay.Store(0)
			// Two writers keep the disk busy all the time.
			working, stop := context.WithCancel(ctx)
			done := make(chan error, 1)
			go func() {
				_, err := round(ctx, 2, time.Hour, func(ctx context.Context, rng *rand.Rand, w, n int) error {
					if working.Err() != nil {
						return errDone
					}
					return f.create(ctx, rng, w, n)
				})
				done <- err
			}()
			v, err = pageTime(ctx, f, opts)
			stop()
			if werr := <-done; !errors.Is(werr, errDone) {
				err = errors.Join(err, werr)
			}
			return v, err
		}
	}
	return b.compare(ctx, "list page of 50 while others write, 5 ms sync", "at 1,000 objects", microseconds(), ratioAtMost(1.5), quiet(large), quiet(small))
}

// errDone ends a round early.
var errDone = errors.New("done")

// pageTime is the mean time of a page in microseconds, of pages from all over
// the list.
func pageTime(ctx context.Context, f *fleet, opts store.ListOptions) (float64, error) {
	begin := time.Now()
	for n := range listReads {
		page, err := f.s.List(ctx, opts)
		if err != nil {
			return 0, err
		}
		if len(page.Items) != listPage {
			return 0, fmt.Errorf("a page has %d objects", len(page.Items))
		}
		opts.Continue = page.Continue
		if n%10 == 9 { // as far as people leaf
			opts.Continue = ""
		}
	}
	return float64(time.Since(begin).Microseconds()) / listReads, nil
}

// storeAgainstBatch writes the same rows with bbolt's Batch into a copy of the
// file, in turns with the store.
func storeAgainstBatch(ctx context.Context, b *bench, f *fleet) (err error) {
	path := filepath.Join(b.dir, "batch.db")
	out, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("copy the store: %w", err)
	}
	if err := errors.Join(f.s.Backup(ctx, out), out.Close()); err != nil {
		return err
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType})
	if err != nil {
		return fmt.Errorf("open the copy: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	peer := &batchPeer{db: db}
	span := b.span(2*time.Second, 40*time.Millisecond)
	rate := func(write writeFunc) measure {
		return func(ctx context.Context) (float64, error) {
			r, err := round(ctx, storeWriters, span, write)
			return r.perSecond, err
		}
	}
	return b.compare(ctx, "new objects beside bbolt's Batch of the same rows", "bbolt Batch", perSecond(), noBar(), rate(f.create), rate(peer.create))
}

// batchPeer writes what a create writes, with bbolt alone.
type batchPeer struct{ db *bolt.DB }

func (p *batchPeer) create(context.Context, *rand.Rand, int, int) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	name := id.String()
	value := make([]byte, 700)
	created := store.TimeValue(time.Now(), true)
	return p.db.Batch(func(tx *bolt.Tx) error {
		log, objects, indexes := tx.Bucket([]byte("log")), tx.Bucket([]byte("objects")), tx.Bucket([]byte("indexes"))
		// A commit's revision, which one transaction at a time can take.
		last, _ := log.Cursor().Last()
		row := binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(last)+1)
		return errors.Join(
			objects.Put([]byte(runKind+"\x00default\x00"+name), value),
			log.Put(append(row, 0, 0, 0, 0), value),
			indexes.Put([]byte(runKind+"\x00state\x00default\x00PENDING"+created+name), nil),
			indexes.Put([]byte(runKind+"\x00created\x00default\x00"+created+name), nil),
		)
	})
}

// storeCheck shows what a start costs.
func storeCheck(ctx context.Context, b *bench, f *fleet) error {
	path := filepath.Join(b.dir, "check.db")
	out, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("copy the store: %w", err)
	}
	if err := errors.Join(f.s.Backup(ctx, out), out.Close()); err != nil {
		return err
	}
	timed := func(full bool) measure {
		return func(ctx context.Context) (float64, error) {
			begin := time.Now()
			err := store.Check(ctx, path, full)
			return float64(time.Since(begin)) / float64(time.Millisecond), err
		}
	}
	if err := b.alone(ctx, "boot check of the file", milliseconds(), noBar(), timed(false)); err != nil {
		return err
	}
	if err := b.alone(ctx, "full check of the file", milliseconds(), noBar(), timed(true)); err != nil {
		return err
	}
	return b.alone(ctx, "open and close", milliseconds(), noBar(), func(ctx context.Context) (float64, error) {
		begin := time.Now()
		s, err := store.Open(ctx, store.Config{Path: path, Kinds: f.kinds()})
		if err != nil {
			return 0, err
		}
		err = s.Close()
		return float64(time.Since(begin)) / float64(time.Millisecond), err
	})
}
