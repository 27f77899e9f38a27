package query

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"strings"
)

// ErrToken is returned for a page token that is not one of this list's.
var ErrToken = errors.New("is not one of this list's; begin the list anew")

// Token is what a page token says: which list it is of, and where its next page
// begins.
type Token struct {
	Kind      string `json:"k"`
	Namespace string `json:"n,omitempty"`
	Scope     string `json:"e,omitempty"`
	SortBy    string `json:"s,omitempty"`
	Desc      bool   `json:"d,omitempty"`
	// Filter is the list's filter as its caller writes it.
	Filter string   `json:"f,omitempty"`
	At     Position `json:"p"`
}

// Is reports whether two tokens are of one list.
func (t Token) Is(other Token) bool {
	return t.Kind == other.Kind && t.Namespace == other.Namespace && t.Scope == other.Scope &&
		t.SortBy == other.SortBy && t.Desc == other.Desc && t.Filter == other.Filter
}

// Position is where a page ends.
type Position struct {
	// Span names the span that is walked, Continue is the store's own token in
	// it. Lacking says that the walk is at what the span leaves out.
	Span     string `json:"s,omitempty"`
	Continue string `json:"c,omitempty"`
	Lacking  bool   `json:"l,omitempty"`
	// Seen counts what was given before, Total is the list's where it was counted.
	Seen  int `json:"n,omitempty"`
	Total int `json:"t,omitempty"`
	// Gathered lists name the last object given, and the value it was sorted by.
	Gathered bool   `json:"g,omitempty"`
	Has      bool   `json:"h,omitempty"`
	Last     []byte `json:"v,omitempty"`
	Object   string `json:"i,omitempty"`
}

// entry is the object that a gathered page ended with.
func (p Position) entry() *entry {
	if !p.Gathered {
		return nil
	}
	namespace, name, _ := strings.Cut(p.Object, "/")
	return &entry{place: place{namespace, name}, key: string(p.Last), has: p.Has}
}

// maxToken is more than any token takes: the largest filter, and a value.
const maxToken = 128 << 10

// Encode writes a token: opaque, and hard to garble unnoticed.
func (t Token) Encode() string {
	body, err := json.Marshal(t)
	if err != nil {
		return "" // texts and numbers always encode
	}
	body = binary.BigEndian.AppendUint32(body, crc32.ChecksumIEEE(body))
	return base64.RawURLEncoding.EncodeToString(body)
}

// DecodeToken is the inverse of Encode; ErrToken for anything else.
func DecodeToken(text string) (Token, error) {
	var t Token
	if len(text) > maxToken {
		return t, ErrToken
	}
	body, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
	if err != nil || len(body) < 4 {
		return t, ErrToken
	}
	body, sum := body[:len(body)-4], body[len(body)-4:]
	if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(sum) || json.Unmarshal(body, &t) != nil {
		return t, ErrToken
	}
	if t.At.Seen < 0 || t.At.Total < 0 || (t.At.Gathered && (t.At.Span != "" || !strings.Contains(t.At.Object, "/"))) {
		return t, ErrToken
	}
	return t, nil
}
