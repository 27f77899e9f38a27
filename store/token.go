package store

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// tokenVersion is the first byte of a continue token.
const tokenVersion = 1

// fingerprint ties a token to the list that it continues.
func (o ListOptions) fingerprint() uint32 {
	flags := byte(0)
	if o.Exact {
		flags |= 1
	}
	if o.Reverse {
		flags |= 2
	}
	crc := crc32.New(castagnoli())
	for _, part := range []string{o.Kind, o.Namespace, o.Index, o.Prefix, o.From, o.Until} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		_, _ = crc.Write(length[:])
		_, _ = crc.Write([]byte(part))
	}
	_, _ = crc.Write([]byte{flags})
	return crc.Sum32()
}

// position is the last row of a page: the object's place, and for a list by
// index the escaped value before it.
type position struct {
	value, namespace, name string
}

// encodeToken writes a position as an opaque continue token. It names a place
// in the order, not a snapshot, so it stays good however long it is kept.
func (o ListOptions) encodeToken(p position) string {
	b := []byte{tokenVersion}
	b = binary.BigEndian.AppendUint32(b, o.fingerprint())
	for _, part := range []string{p.value, p.namespace, p.name} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
	return base64.RawURLEncoding.EncodeToString(b)
}

// decodeToken is the inverse of encodeToken; ErrInvalid for anything else,
// tokens of another list included.
func (o ListOptions) decodeToken(token string) (position, error) {
	fail := func(why string) (position, error) {
		return position{}, fmt.Errorf("list %s: the continue token %s; begin the list anew: %w", o.Kind, why, ErrInvalid)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < 9 {
		return fail("is malformed")
	}
	body, sum := b[:len(b)-4], b[len(b)-4:]
	if crc32.Checksum(body, castagnoli()) != binary.BigEndian.Uint32(sum) || body[0] != tokenVersion {
		return fail("is malformed")
	}
	if binary.BigEndian.Uint32(body[1:]) != o.fingerprint() {
		return fail("belongs to a list with other options")
	}
	var p position
	rest := body[5:]
	for _, part := range []*string{&p.value, &p.namespace, &p.name} {
		var ok bool
		if *part, rest, ok = cutCounted(rest); !ok {
			return fail("is malformed")
		}
	}
	if len(rest) > 0 || p.name == "" {
		return fail("is malformed")
	}
	return p, nil
}
