package store

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzParseRecord: no bytes make the decoder of values do anything but succeed
// or say that they are damaged, also behind a right checksum.
func FuzzParseRecord(f *testing.F) {
	good := newRecord([]indexEntry{{"state", "RUNNING"}, {"", ""}}, []byte(`{"metadata":{"name":"a"}}`))
	sealRecord(good, "k\x00n\x00a", 7)
	f.Add([]byte{}, false)
	f.Add(good, false)
	f.Add(good[:len(good)-1], true)
	f.Add([]byte("....\x01........\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), true)
	f.Fuzz(func(t *testing.T, value []byte, reseal bool) {
		const key = "k\x00n\x00a"
		if reseal && len(value) > recordHeader {
			value = bytes.Clone(value)
			value[4] = formatV1
			sealRecord(value, key, 9)
		}
		rec, err := parseRecord(key, value)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%v is not ErrCorrupt", err)
			}
			return
		}
		entries, err := rec.entries(key)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%v is not ErrCorrupt", err)
			}
			return
		}
		if _, err := rec.meta(Key{Kind: "k", Name: "a"}); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%v is not ErrCorrupt", err)
		}
		again := newRecord(entries, rec.json)
		sealRecord(again, key, rec.revision)
		back, err := parseRecord(key, again)
		if err != nil || back.revision != rec.revision || !bytes.Equal(back.json, rec.json) {
			t.Fatalf("written and read again: %+v, %v", back, err)
		}
	})
}

func FuzzParseChange(f *testing.F) {
	row := logKey(5, 0)
	f.Add(row, newChange(row, Modified, "k\x00n\x00a", []byte("{}")))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, row, value []byte) {
		c, err := parseChange(row, value)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%v is not ErrCorrupt", err)
			}
			return
		}
		back, err := parseChange(row, newChange(row, c.event, c.rawKey, c.json))
		if err != nil || back.event != c.event || back.rawKey != c.rawKey || !bytes.Equal(back.json, c.json) {
			t.Fatalf("written and read again: %+v, %v", back, err)
		}
	})
}

func FuzzToken(f *testing.F) {
	opts := ListOptions{Kind: "k", Index: "i"}
	f.Add(opts.encodeToken(position{"v\x00\xff", "n", "a"}))
	f.Add("")
	f.Add("AQAAAAA")
	f.Fuzz(func(t *testing.T, token string) {
		p, err := opts.decodeToken(token)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%v is not ErrInvalid", err)
			}
			return
		}
		if again := opts.encodeToken(p); again != token {
			t.Fatalf("token %q became %q", token, again)
		}
		if _, err := (ListOptions{Kind: "other"}).decodeToken(token); !errors.Is(err, ErrInvalid) {
			t.Fatalf("another list took the token: %v", err)
		}
	})
}

// FuzzIndexRow: rows are told apart, taken apart again, and sort as their
// values do.
func FuzzIndexRow(f *testing.F) {
	f.Add("a", "x", "a\x00", "x")
	f.Add("\x00\xff", "x", "\x00\x01", "y")
	f.Fuzz(func(t *testing.T, v1, n1, v2, n2 string) {
		k1, k2 := Key{Kind: "k", Namespace: "n", Name: n1}, Key{Kind: "k", Namespace: "n", Name: n2}
		if k1.validate() != nil || k2.validate() != nil {
			return
		}
		r1, r2 := indexRow(k1, "i", v1), indexRow(k2, "i", v2)
		key, index, escaped, err := parseIndexRow(r1)
		if err != nil || key != k1 || index != "i" || escaped != string(appendEscaped(nil, v1)) {
			t.Fatalf("row %q is read as %v %q %q, %v", r1, key, index, escaped, err)
		}
		want := bytes.Compare([]byte(v1), []byte(v2))
		if want == 0 {
			want = bytes.Compare([]byte(n1), []byte(n2))
		}
		if got := bytes.Compare(r1, r2); got != want {
			t.Fatalf("values %q, %q names %q, %q compare as %d, their rows as %d", v1, v2, n1, n2, want, got)
		}
	})
}

func FuzzJSONWalk(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a","x":"\\\""},"spec":{"a":[1,{"b":"}"}]},"status":1}`))
	f.Add([]byte(`{"a":"\`))
	f.Add([]byte(`{"`))
	f.Fuzz(func(t *testing.T, data []byte) {
		metadata, _ := topLevel(data)
		if metadata != nil && !bytes.Contains(data, metadata) {
			t.Fatal("the metadata is not of the value")
		}
		sameSpec(data, data)
		if rest, _, err := cutResourceVersion(data); err == nil && len(rest) >= len(data) {
			t.Fatalf("%q became %q", data, rest)
		}
	})
}
