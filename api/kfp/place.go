package kfp

import (
	"strconv"
	"strings"
)

// place is a spot in a document: the way from its root down. The zero pointer
// is the root itself.
type place struct {
	parent *place
	name   string
	index  int // of a list's element; name is empty then
}

// key goes down to a field or a map's key.
func (p *place) key(name string) *place { return &place{parent: p, name: name, index: -1} }

// keys goes down several.
func (p *place) keys(names ...string) *place {
	for _, name := range names {
		p = p.key(name)
	}
	return p
}

// at goes down to a list's element.
func (p *place) at(index int) *place { return &place{parent: p, index: index} }

// String writes the path as people read it: root.dag.tasks.train, keys with
// other characters in brackets.
func (p *place) String() string {
	if p == nil {
		return ""
	}
	var b strings.Builder
	p.write(&b)
	return clip(b.String(), maxPlaceText)
}

// maxPlaceText keeps the place of a value in a thousand brackets readable.
const maxPlaceText = 300

func (p *place) write(b *strings.Builder) {
	if p.parent != nil {
		p.parent.write(b)
	}
	switch {
	case p.index >= 0:
		b.WriteString("[" + strconv.Itoa(p.index) + "]")
	case !plainKey(p.name):
		b.WriteString("[" + strconv.Quote(clip(p.name, 100)) + "]")
	default:
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(p.name)
	}
}

func plainKey(name string) bool {
	if name == "" || len(name) > 100 {
		return false
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' {
			return false
		}
	}
	return true
}

// clip shortens text for a message.
func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	cut := limit
	for cut > 0 && text[cut]&0xC0 == 0x80 {
		cut-- // not in the middle of a character
	}
	return text[:cut] + "…"
}
