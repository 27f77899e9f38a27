package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// maxKeyPart bounds kind, namespace and name. bbolt takes keys up to 32 KiB; an
// index entry holds all three and a value.
const maxKeyPart = 1024

// maxIndexValue bounds one index entry's value, before escaping.
const maxIndexValue = 4096

// String renders a key for people: "pods default/train-0".
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// raw is the key in the objects bucket.
func (k Key) raw() string { return k.Kind + "\x00" + k.Namespace + "\x00" + k.Name }

// parseRawKey is the inverse of raw.
func parseRawKey(raw []byte) (Key, error) {
	kind, rest, ok := bytes.Cut(raw, []byte{0})
	namespace, name, ok2 := bytes.Cut(rest, []byte{0})
	if !ok || !ok2 || len(name) == 0 || bytes.IndexByte(name, 0) >= 0 {
		return Key{}, fmt.Errorf("key %q: %w", raw, ErrCorrupt)
	}
	return Key{Kind: string(kind), Namespace: string(namespace), Name: string(name)}, nil
}

// validate refuses keys that could not be told apart from others.
func (k Key) validate() error {
	if k.Name == "" {
		return fmt.Errorf("%s: metadata.name is empty: %w", k, ErrInvalid)
	}
	for _, part := range []string{k.Kind, k.Namespace, k.Name} {
		switch {
		case len(part) > maxKeyPart:
			return fmt.Errorf("%.80s: a name of %d bytes is longer than %d: %w", k, len(part), maxKeyPart, ErrInvalid)
		case strings.IndexByte(part, 0) >= 0 || !utf8.ValidString(part):
			return fmt.Errorf("%q: a name must be UTF-8 without NUL: %w", k.String(), ErrInvalid)
		}
	}
	return nil
}

// Index rows: kind NUL index NUL namespace NUL escaped value 00 01 name.
const (
	escapeByte   = 0xFF
	terminator   = 0x01
	pastEqual    = 0x02 // sorts after every row with exactly this value
	afterNULByte = 0x01 // kind NUL index NUL namespace 01 sorts after the namespace's rows
)

// appendEscaped writes value so that bytes order and prefixes are kept and 00
// is always followed by FF.
func appendEscaped(dst []byte, value string) []byte {
	for {
		i := strings.IndexByte(value, 0)
		if i < 0 {
			return append(dst, value...)
		}
		dst = append(dst, value[:i]...)
		dst = append(dst, 0, escapeByte)
		value = value[i+1:]
	}
}

// indexPrefix is the part of an index's rows before the namespace.
func indexPrefix(kind, index string) []byte {
	b := make([]byte, 0, len(kind)+len(index)+64)
	b = append(b, kind...)
	b = append(b, 0)
	b = append(b, index...)
	return append(b, 0)
}

// indexRow is the row of one entry of one object.
func indexRow(k Key, index, value string) []byte {
	b := make([]byte, 0, len(k.Kind)+len(index)+len(k.Namespace)+len(value)+len(k.Name)+8)
	b = append(b, k.Kind...)
	b = append(b, 0)
	b = append(b, index...)
	b = append(b, 0)
	b = append(b, k.Namespace...)
	b = append(b, 0)
	b = appendEscaped(b, value)
	b = append(b, 0, terminator)
	return append(b, k.Name...)
}

// splitIndexRow takes what follows the namespace's NUL apart into the escaped
// value and the name.
func splitIndexRow(rest []byte) (escaped, name []byte, ok bool) {
	for i := 0; i+1 < len(rest); i++ {
		if rest[i] != 0 {
			continue
		}
		if rest[i+1] == terminator {
			return rest[:i], rest[i+2:], i+2 < len(rest)
		}
		i++ // an escaped NUL
	}
	return nil, nil, false
}

// logKey is the change log's key of the op numbered sequence of a commit.
func logKey(revision uint64, sequence uint32) []byte {
	b := make([]byte, 0, 12)
	b = binary.BigEndian.AppendUint64(b, revision)
	return binary.BigEndian.AppendUint32(b, sequence)
}

// timeValue is 16 hexadecimal digits: printable, of fixed width, and in the
// order of time to the nanosecond. Times outside the years 1678 to 2262 are
// taken to that range's ends.
func timeValue(t time.Time, descending bool) string {
	var nanos int64
	switch seconds := t.Unix(); {
	case seconds <= math.MinInt64/int64(time.Second):
		nanos = math.MinInt64
	case seconds >= math.MaxInt64/int64(time.Second):
		nanos = math.MaxInt64
	default:
		nanos = t.UnixNano()
	}
	ordered := uint64(nanos) ^ 1<<63
	if descending {
		ordered = ^ordered
	}
	const digits = "0123456789abcdef"
	var out [16]byte
	for i := range out {
		out[i] = digits[ordered>>(60-4*i)&15]
	}
	return string(out[:])
}

// parseIndexRow takes an index row apart.
func parseIndexRow(row []byte) (key Key, index, escaped string, err error) {
	kind, rest, ok := bytes.Cut(row, []byte{0})
	name, rest, ok2 := bytes.Cut(rest, []byte{0})
	namespace, rest, ok3 := bytes.Cut(rest, []byte{0})
	value, object, ok4 := splitIndexRow(rest)
	if !ok || !ok2 || !ok3 || !ok4 {
		return Key{}, "", "", fmt.Errorf("index row %q: %w", row, ErrCorrupt)
	}
	return Key{Kind: string(kind), Namespace: string(namespace), Name: string(object)}, string(name), string(value), nil
}
