package store

import (
	"encoding/binary"
	"fmt"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

// SchemaVersion is the layout that this code writes; see doc.go.
const SchemaVersion = 1

// The buckets' and the meta bucket's keys, as functions so that no caller can
// change them.
func bucketMeta() []byte    { return []byte("meta") }
func bucketObjects() []byte { return []byte("objects") }
func bucketIndexes() []byte { return []byte("indexes") }
func bucketLog() []byte     { return []byte("log") }

const (
	metaSchema  = "schema"
	metaID      = "id"
	metaClean   = "clean"
	metaState   = "state"
	metaChanged = "changed"
	metaIndexes = "indexes/"
	metaKey     = "key"
)

// state is what every commit writes to the meta bucket.
type state struct {
	// revision is the newest commit's.
	revision uint64
	// compacted is the newest revision that the change log no longer holds.
	compacted uint64
	// logBytes is the size of the change log's keys and values.
	logBytes int64
}

func (s state) encode() []byte {
	b := make([]byte, 4, 28)
	b = binary.BigEndian.AppendUint64(b, s.revision)
	b = binary.BigEndian.AppendUint64(b, s.compacted)
	b = binary.BigEndian.AppendUint64(b, uint64(s.logBytes))
	binary.BigEndian.PutUint32(b, checksum(metaState, b[4:]))
	return b
}

func parseState(b []byte) (state, error) {
	if len(b) != 28 || binary.BigEndian.Uint32(b) != checksum(metaState, b[4:]) {
		return state{}, fmt.Errorf("read the store's revision: %w", ErrCorrupt)
	}
	return state{
		revision:  binary.BigEndian.Uint64(b[4:]),
		compacted: binary.BigEndian.Uint64(b[12:]),
		logBytes:  int64(binary.BigEndian.Uint64(b[20:])),
	}, nil
}

// buckets are the four buckets of one transaction.
type buckets struct {
	meta, objects, indexes, log *bolt.Bucket
}

// bucketsOf fails where one is missing: that is damage, not an empty store.
func bucketsOf(tx *bolt.Tx) (buckets, error) {
	b := buckets{
		meta:    tx.Bucket(bucketMeta()),
		objects: tx.Bucket(bucketObjects()),
		indexes: tx.Bucket(bucketIndexes()),
		log:     tx.Bucket(bucketLog()),
	}
	if b.meta == nil || b.objects == nil || b.indexes == nil || b.log == nil {
		return b, fmt.Errorf("a bucket is missing: %w", ErrCorrupt)
	}
	return b, nil
}

// readSchema returns the version of the file's layout; a file that is bbolt but
// not a store is ErrCorrupt.
func readSchema(tx *bolt.Tx) (int, error) {
	meta := tx.Bucket(bucketMeta())
	if meta == nil {
		return 0, fmt.Errorf("the file holds no store: %w", ErrCorrupt)
	}
	version, err := strconv.Atoi(string(meta.Get([]byte(metaSchema))))
	if err != nil {
		return 0, fmt.Errorf("the schema version %q is not a number: %w", meta.Get([]byte(metaSchema)), ErrCorrupt)
	}
	return version, nil
}

// initialize writes an empty store's rows.
func initialize(tx *bolt.Tx, id string) error {
	for _, name := range [][]byte{bucketMeta(), bucketObjects(), bucketIndexes(), bucketLog()} {
		if _, err := tx.CreateBucket(name); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	meta := tx.Bucket(bucketMeta())
	for key, value := range map[string][]byte{
		metaSchema: []byte(strconv.Itoa(SchemaVersion)),
		metaID:     []byte(id),
		metaClean:  []byte("1"),
		// Revision 0 means "from now on" to a watch, so the first is 1.
		metaState: state{revision: 1, compacted: 1}.encode(),
	} {
		if err := meta.Put([]byte(key), value); err != nil {
			return fmt.Errorf("write meta %s: %w", key, err)
		}
	}
	return nil
}
