package store

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strconv"
	"unsafe"

	"github.com/skiff-ml/skiff/api/core"
)

// formatV1 is the first byte after the CRC of every record and change.
const formatV1 = 1

// recordHeader is the bytes before a record's index block: CRC, format, revision.
const recordHeader = 4 + 1 + 8

// indexEntry is one entry of an object in one of its kind's indexes.
type indexEntry struct{ name, value string }

// record is one object as it lies in the file.
type record struct {
	revision uint64
	// block is the index entries, still encoded.
	block []byte
	// json is the object without its resourceVersion.
	json []byte
}

// castagnoli returns the polynomial's table; the standard library keeps one copy.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func checksum(key string, sealed []byte) uint32 {
	table := castagnoli()
	crc := crc32.Update(0, table, unsafe.Slice(unsafe.StringData(key), len(key)))
	return crc32.Update(crc, table, sealed)
}

// newRecord encodes all but CRC and revision, which seal fills in.
func newRecord(entries []indexEntry, object []byte) []byte {
	block := 0
	for _, e := range entries {
		block += len(e.name) + len(e.value) + 2*binary.MaxVarintLen16
	}
	b := make([]byte, recordHeader, recordHeader+binary.MaxVarintLen32+block+len(object))
	b[4] = formatV1
	encoded := make([]byte, 0, block)
	for _, e := range entries {
		encoded = binary.AppendUvarint(encoded, uint64(len(e.name)))
		encoded = append(encoded, e.name...)
		encoded = binary.AppendUvarint(encoded, uint64(len(e.value)))
		encoded = append(encoded, e.value...)
	}
	b = binary.AppendUvarint(b, uint64(len(encoded)))
	b = append(b, encoded...)
	return append(b, object...)
}

// sealRecord writes revision and CRC into a record made by newRecord.
func sealRecord(b []byte, rawKey string, revision uint64) {
	binary.BigEndian.PutUint64(b[5:], revision)
	binary.BigEndian.PutUint32(b, checksum(rawKey, b[4:]))
}

// parseRecord checks and takes a record apart. The parts alias value.
func parseRecord(rawKey string, value []byte) (record, error) {
	if len(value) < recordHeader+1 {
		return record{}, corrupt(rawKey, "the record is only %d bytes long", len(value))
	}
	if binary.BigEndian.Uint32(value) != checksum(rawKey, value[4:]) {
		return record{}, corrupt(rawKey, "the checksum is wrong")
	}
	if value[4] != formatV1 {
		return record{}, corrupt(rawKey, "the record has the unknown format %d", value[4])
	}
	rest := value[recordHeader:]
	length, n := binary.Uvarint(rest)
	if n <= 0 || length > uint64(len(rest)-n) {
		return record{}, corrupt(rawKey, "the index block is cut off")
	}
	return record{
		revision: binary.BigEndian.Uint64(value[5:]),
		block:    rest[n : n+int(length)],
		json:     rest[n+int(length):],
	}, nil
}

// entries decodes the index block.
func (r record) entries(rawKey string) ([]indexEntry, error) {
	var out []indexEntry
	for b := r.block; len(b) > 0; {
		var e indexEntry
		var ok bool
		if e.name, b, ok = cutCounted(b); !ok {
			return nil, corrupt(rawKey, "an index entry is cut off")
		}
		if e.value, b, ok = cutCounted(b); !ok {
			return nil, corrupt(rawKey, "an index entry is cut off")
		}
		out = append(out, e)
	}
	return out, nil
}

func cutCounted(b []byte) (string, []byte, bool) {
	length, n := binary.Uvarint(b)
	if n <= 0 || length > uint64(len(b)-n) {
		return "", nil, false
	}
	end := n + int(length)
	return string(b[n:end]), b[end:], true
}

// eventCode is how an event's type is written; 0 for one that is never written.
func eventCode(t EventType) byte {
	switch t {
	case Added:
		return 1
	case Modified:
		return 2
	case Deleted:
		return 3
	default:
		return 0
	}
}

// eventOf is the inverse of eventCode; empty for an unknown code.
func eventOf(code byte) EventType {
	for _, t := range []EventType{Added, Modified, Deleted} {
		if eventCode(t) == code {
			return t
		}
	}
	return ""
}

// change is one row of the change log.
type change struct {
	event  EventType
	rawKey string
	json   []byte
}

// newChange encodes a row of the change log. Its CRC covers the row's key.
func newChange(row []byte, event EventType, rawKey string, object []byte) []byte {
	b := make([]byte, 6, 6+binary.MaxVarintLen32+len(rawKey)+len(object))
	b[4], b[5] = formatV1, eventCode(event)
	b = binary.AppendUvarint(b, uint64(len(rawKey)))
	b = append(b, rawKey...)
	b = append(b, object...)
	binary.BigEndian.PutUint32(b, checksum(string(row), b[4:]))
	return b
}

// parseChange checks and takes a row of the change log apart. json aliases value.
func parseChange(row, value []byte) (change, error) {
	name := fmt.Sprintf("change %x", row)
	if len(row) != 12 || len(value) < 7 {
		return change{}, corrupt(name, "the change is only %d bytes long", len(value))
	}
	if binary.BigEndian.Uint32(value) != checksum(string(row), value[4:]) {
		return change{}, corrupt(name, "the checksum is wrong")
	}
	if value[4] != formatV1 {
		return change{}, corrupt(name, "the change has the unknown format %d", value[4])
	}
	c := change{event: eventOf(value[5])}
	var ok bool
	if c.rawKey, c.json, ok = cutCounted(value[6:]); !ok || c.event == "" {
		return change{}, corrupt(name, "the change is malformed")
	}
	return c, nil
}

// decode makes an object of a kind from its JSON, as it lies in the file, and
// revision.
func (k *kindInfo) decode(key Key, revision uint64, data []byte) (core.Object, error) {
	plain, err := k.fromFile(key, data)
	if err != nil {
		return nil, err
	}
	obj := k.New()
	if err := json.Unmarshal(plain, obj); err != nil {
		return nil, fmt.Errorf("decode %s: %w: %w", key, ErrCorrupt, err)
	}
	obj.Metadata().ResourceVersion = formatRevision(revision)
	return obj, nil
}

func formatRevision(revision uint64) string { return strconv.FormatUint(revision, 10) }

// corrupt names the object whose value is damaged.
func corrupt(rawKey, format string, args ...any) error {
	name := rawKey
	if key, err := parseRawKey([]byte(rawKey)); err == nil {
		name = key.String()
	}
	return fmt.Errorf("read %s: %s: %w", name, fmt.Sprintf(format, args...), ErrCorrupt)
}
