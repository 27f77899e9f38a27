package query

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
)

// Op is what a predicate asks of a field. The words are those of
// kubeflow.pipelines.backend.api.v2beta1.Predicate.
type Op string

// The operations.
const (
	Equals        Op = "EQUALS"
	NotEquals     Op = "NOT_EQUALS"
	Greater       Op = "GREATER_THAN"
	GreaterEquals Op = "GREATER_THAN_EQUALS"
	Less          Op = "LESS_THAN"
	LessEquals    Op = "LESS_THAN_EQUALS"
	In            Op = "IN"
	Substring     Op = "IS_SUBSTRING"
)

// Predicate is one condition; all of a filter's must hold.
type Predicate struct {
	Key string
	Op  Op
	// field is the one that Key names, and want what it is compared with: one
	// value, save for In.
	field Field
	want  []value
}

// value is what a predicate compares with, as its field's kind has it.
type value struct {
	text    string
	seconds int64
	raw     json.RawMessage
	key     string // of a free value
}

// NewPredicate compares a field with values: text (string), whole numbers
// (int64) and times (time.Time). list tells a list of one from one value.
func NewPredicate(fields func(name string) (Field, bool), key string, op Op, list bool, values ...any) (Predicate, error) {
	p := Predicate{Key: key, Op: op}
	var known bool
	if p.field, known = fields(key); !known {
		return p, fmt.Errorf("there is no field %.80q", key)
	}
	switch op {
	case In:
		if !list {
			return p, fmt.Errorf("%s: IN wants a list of values", key)
		}
	case Equals, NotEquals, Greater, GreaterEquals, Less, LessEquals, Substring:
		if list || len(values) != 1 {
			return p, fmt.Errorf("%s: %s wants one value, not a list", key, op)
		}
	default:
		return p, fmt.Errorf("%s: there is no operation %.40q", key, string(op))
	}
	for _, v := range values {
		if _, isText := v.(string); op == Substring && (!isText || p.field.kind == moment) {
			return p, fmt.Errorf("%s: IS_SUBSTRING looks into text alone, for a text", key)
		}
		converted, err := p.field.convert(v)
		if err != nil {
			return p, fmt.Errorf("%s %w", key, err)
		}
		if op == Substring {
			converted.text = strings.ToLower(v.(string))
		}
		p.want = append(p.want, converted)
	}
	return p, nil
}

// convert makes a value one of the field's kind. Times may be given as seconds
// since 1970, as upstream keeps them.
func (f Field) convert(given any) (value, error) {
	switch f.kind {
	case moment:
		switch v := given.(type) {
		case time.Time:
			return value{seconds: v.Unix()}, nil
		case int64:
			return value{seconds: v}, nil
		case string:
			if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
				return value{seconds: t.Unix()}, nil
			}
		}
		return value{}, fmt.Errorf("is a time; want a timestamp_value")
	case free:
		raw, err := freeValue(given)
		return value{raw: raw, key: skiff.OrderValue(raw), text: skiff.ValueText(raw)}, err
	}
	v, isText := given.(string)
	if !isText {
		return value{}, fmt.Errorf("is text; want a string_value")
	}
	if f.kind == enum {
		v = strings.ToUpper(v)
	}
	return value{text: v}, nil
}

// freeValue is a JSON value as people write it: what is no JSON is text.
func freeValue(given any) (json.RawMessage, error) {
	switch v := given.(type) {
	case string:
		if json.Valid([]byte(v)) {
			return json.RawMessage(v), nil
		}
		given = v
	case int64:
	default:
		return nil, fmt.Errorf("is a metric or a parameter; want a number or a string_value")
	}
	raw, err := json.Marshal(given)
	if err != nil {
		return nil, fmt.Errorf("cannot be %v: %w", given, err)
	}
	return raw, nil
}

// Holds reports whether an object meets the predicate. An object without the
// field meets none.
func (p *Predicate) Holds(obj core.Object) bool {
	switch p.field.kind {
	case moment:
		return p.ofSeconds(p.field.moment(obj).Unix())
	case free:
		return p.ofFree(p.field.free(obj))
	case enum:
		return p.ofText([]byte(strings.ToUpper(p.field.text(obj))))
	default:
		return p.ofText([]byte(p.field.text(obj)))
	}
}

func (p *Predicate) ofText(have []byte) bool {
	switch p.Op {
	case In:
		return slices.ContainsFunc(p.want, func(v value) bool { return string(have) == v.text })
	case Substring:
		return containsFold(have, p.want[0].text)
	}
	return p.Op.accepts(strings.Compare(string(have), p.want[0].text))
}

func (p *Predicate) ofSeconds(have int64) bool {
	if p.Op == In {
		return slices.ContainsFunc(p.want, func(v value) bool { return have == v.seconds })
	}
	return p.Op.accepts(cmp.Compare(have, p.want[0].seconds))
}

func (p *Predicate) ofFree(have json.RawMessage) bool {
	key := skiff.OrderValue(have)
	if key == "" {
		return false
	}
	want := p.want
	switch p.Op {
	case In:
		return slices.ContainsFunc(want, func(v value) bool { return equalFree(have, key, v) })
	case Equals:
		return equalFree(have, key, want[0])
	case NotEquals:
		return !equalFree(have, key, want[0])
	case Substring:
		return containsFold([]byte(skiff.ValueText(have)), want[0].text)
	}
	// An order is between two numbers or two texts.
	x, xok := skiff.Number(have)
	y, yok := skiff.Number(want[0].raw)
	switch {
	case xok && yok:
		return p.Op.accepts(cmp.Compare(x, y))
	case isText(have) && isText(want[0].raw):
		return p.Op.accepts(strings.Compare(skiff.ValueText(have), want[0].text))
	}
	return false
}

func isText(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '"' }

// equalFree compares JSON values by what they mean (1 and 1.0 are one number),
// and a text with what is none by how it is written.
func equalFree(have json.RawMessage, key string, want value) bool {
	if isText(have) != isText(want.raw) {
		return skiff.ValueText(have) == want.text
	}
	if key[0] == '0' {
		return key == want.key
	}
	var x, y any
	if json.Unmarshal(have, &x) != nil || json.Unmarshal(want.raw, &y) != nil {
		return bytes.Equal(have, want.raw)
	}
	first, err := json.Marshal(x)
	if err != nil {
		return false
	}
	second, err := json.Marshal(y)
	return err == nil && bytes.Equal(first, second)
}

// accepts reports whether an order of the field and the value is the one that
// the operation wants.
func (op Op) accepts(order int) bool {
	switch op {
	case Equals:
		return order == 0
	case NotEquals:
		return order != 0
	case Greater:
		return order > 0
	case GreaterEquals:
		return order >= 0
	case Less:
		return order < 0
	default:
		return order <= 0
	}
}

// containsFold reports whether text holds what, which is in lower case, without
// regard to case. Names are ASCII nearly always, and then nothing is copied: a
// list may look into very many.
func containsFold(text []byte, what string) bool {
	if what == "" {
		return true
	}
	for _, c := range text {
		if c >= utf8.RuneSelf {
			return strings.Contains(strings.ToLower(string(text)), what)
		}
	}
	for at := 0; at+len(what) <= len(text); at++ {
		if lower(text[at]) != what[0] {
			continue
		}
		i := 1
		for i < len(what) && lower(text[at+i]) == what[i] {
			i++
		}
		if i == len(what) {
			return true
		}
	}
	return false
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
