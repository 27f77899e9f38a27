package kfp

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/server/query"
)

// operation is an operation by its number, which clients send as often as the
// name (kubeflow.pipelines.backend.api.v2beta1.Predicate.Operation; 4 was never
// given out).
func operation(text string) query.Op {
	numbers := map[string]query.Op{"1": query.Equals, "2": query.NotEquals, "3": query.Greater, "5": query.GreaterEquals,
		"6": query.Less, "7": query.LessEquals, "8": query.In, "9": query.Substring}
	if op, is := numbers[text]; is {
		return op
	}
	return query.Op(text)
}

type filterMessage struct {
	Predicates []predicateMessage `json:"predicates"`
}

type predicateMessage struct {
	Operation      json.RawMessage `json:"operation"`
	Key            string          `json:"key"`
	IntValue       *int32          `json:"int_value"`
	LongValue      *int64          `json:"long_value"`
	StringValue    *string         `json:"string_value"`
	TimestampValue *time.Time      `json:"timestamp_value"`
	IntValues      *intValues      `json:"int_values"`
	LongValues     *longValues     `json:"long_values"`
	StringValues   *stringValues   `json:"string_values"`
}

type intValues struct {
	Values []int32 `json:"values"`
}

type longValues struct {
	Values []int64 `json:"values"`
}

type stringValues struct {
	Values []string `json:"values"`
}

// maxPredicates and maxFilter bound what one list has to weigh.
const (
	maxPredicates = 100
	maxFilter     = 64 << 10
)

// parseFilter reads a filter and holds it against the fields that a list has.
func parseFilter(text string, l *query.Listing) ([]query.Predicate, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxFilter {
		return nil, badRequest("filter: is longer than %d bytes", maxFilter)
	}
	var message filterMessage
	if err := decode([]byte(text), &message); err != nil {
		return nil, badRequest("filter: %v", err)
	}
	if len(message.Predicates) > maxPredicates {
		return nil, badRequest("filter: has %d predicates, more than %d", len(message.Predicates), maxPredicates)
	}
	parsed := make([]query.Predicate, 0, len(message.Predicates))
	for i := range message.Predicates {
		p, err := message.Predicates[i].parse(l)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, p)
	}
	return parsed, nil
}

func (m *predicateMessage) parse(l *query.Listing) (query.Predicate, error) {
	var none query.Predicate
	if m.Key == "" {
		return none, badRequest("filter: a predicate has no key")
	}
	if _, known := l.Field(m.Key); !known {
		return none, badRequest("filter: there is no field %.80q; fields are %s", m.Key, query.Names(l.Fields))
	}
	values, list, err := m.value()
	if err != nil {
		return none, err
	}
	p, err := query.NewPredicate(l.Field, m.Key, operation(strings.Trim(string(m.Operation), `"`)), list, values...)
	if err != nil {
		return p, badRequest("filter: %v", err)
	}
	return p, nil
}

// value is the predicate's one value, or its list.
func (m *predicateMessage) value() (values []any, list bool, err error) {
	given := 0
	take := func(isList bool, all ...any) {
		given++
		values, list = all, isList
	}
	if m.IntValue != nil {
		take(false, int64(*m.IntValue))
	}
	if m.LongValue != nil {
		take(false, *m.LongValue)
	}
	if m.StringValue != nil {
		take(false, *m.StringValue)
	}
	if m.TimestampValue != nil {
		take(false, *m.TimestampValue)
	}
	if m.IntValues != nil {
		all := make([]any, 0, len(m.IntValues.Values))
		for _, v := range m.IntValues.Values {
			all = append(all, int64(v))
		}
		take(true, all...)
	}
	if m.LongValues != nil {
		all := make([]any, 0, len(m.LongValues.Values))
		for _, v := range m.LongValues.Values {
			all = append(all, v)
		}
		take(true, all...)
	}
	if m.StringValues != nil {
		all := make([]any, 0, len(m.StringValues.Values))
		for _, v := range m.StringValues.Values {
			all = append(all, v)
		}
		take(true, all...)
	}
	switch given {
	case 0:
		return nil, false, badRequest("filter: %s: has no value", m.Key)
	case 1:
		return values, list, nil
	}
	return nil, false, badRequest("filter: %s: has %d values; want one", m.Key, given)
}
