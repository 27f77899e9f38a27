package kfp

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/skiff-ml/skiff/api/problem"
)

// decoder fills the types of this package from a document's nodes, by the names
// in their json tags. It is strict, as the published protobuf JSON is: unknown
// fields, repeated fields and values of another type are problems. Field names
// are accepted in camelCase and in snake_case; the keys of maps are the user's
// own and are left alone. It goes on after a problem, so that a person sees all
// of them at once.
type decoder struct {
	limits   Limits
	problems problem.List
	// nodes and bytes count what was visited, the targets of aliases each time.
	nodes int
	bytes int64
	// spent is set when the counts are over, or when there are more problems
	// than anybody reads: nothing is decoded any further.
	spent bool
	// open holds the anchors that are being expanded, against cycles.
	open   map[*yaml.Node]bool
	fields map[reflect.Type]map[string]fieldInfo
}

// fieldInfo finds a struct's field.
type fieldInfo struct {
	index int
	name  string // in camelCase
}

func newDecoder(limits Limits) *decoder {
	return &decoder{limits: limits, open: map[*yaml.Node]bool{}, fields: map[reflect.Type]map[string]fieldInfo{}}
}

// problem notes one at a node. A nil node has no line.
func (d *decoder) problem(at *place, node *yaml.Node, format string, args ...any) *problem.Error {
	p := &problem.Error{Field: at.String(), Err: fmt.Errorf(format, args...)}
	if node != nil {
		p.Line, p.Column = node.Line, node.Column
	}
	d.problems = append(d.problems, p)
	d.spent = d.spent || len(d.problems) >= d.limits.MaxProblems
	return p
}

// enter counts a node and follows an alias. ok is false where nothing is to be
// decoded; leave must be called otherwise.
func (d *decoder) enter(node *yaml.Node, at *place, depth int) (target *yaml.Node, ok bool) {
	if d.spent {
		return nil, false
	}
	if depth > d.limits.MaxDepth {
		d.problem(at, node, "nested more than %d levels deep", d.limits.MaxDepth)
		return nil, false
	}
	d.nodes++
	d.bytes += int64(len(node.Value))
	target = node
	if node.Kind == yaml.AliasNode {
		target = node.Alias
		d.bytes += int64(len(target.Value))
		if d.open[target] {
			d.problem(at, node, "the alias *%s stands inside of what it repeats", clip(node.Value, 40))
			return nil, false
		}
	}
	if d.nodes > d.limits.MaxNodes || d.bytes > d.limits.MaxBytes {
		d.spent = true
		d.problem(at, node, "the document's aliases make it larger than %d values or %d bytes", d.limits.MaxNodes, d.limits.MaxBytes).
			Hint = "write repeated parts out, or as components"
		return nil, false
	}
	if !plainTag(target) {
		d.problem(at, target, "the tag %s is not supported", clip(target.Tag, 60)).Hint = "write plain YAML"
		return nil, false
	}
	if target.Anchor != "" {
		d.open[target] = true
	}
	return target, true
}

// plainTag reports whether a node is of a kind that JSON has too.
func plainTag(node *yaml.Node) bool {
	switch node.ShortTag() {
	case "!!str", "!!timestamp", "!!int", "!!float", "!!bool", "!!null":
		return node.Kind == yaml.ScalarNode
	case "!!map":
		return node.Kind == yaml.MappingNode
	case "!!seq":
		return node.Kind == yaml.SequenceNode
	}
	return false
}

func (d *decoder) leave(target *yaml.Node) {
	if target.Anchor != "" {
		delete(d.open, target)
	}
}

// decode fills v from node. Null leaves v as it is, as in protobuf JSON.
func (d *decoder) decode(v reflect.Value, node *yaml.Node, at *place, depth int) {
	node, ok := d.enter(node, at, depth)
	if !ok {
		return
	}
	defer d.leave(node)
	if v.Kind() == reflect.Interface {
		if value := d.value(node, at, depth); value != nil {
			v.Set(reflect.ValueOf(value))
		}
		return
	}
	if isNull(node) {
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Struct:
		d.message(v, node, at, depth)
	case reflect.Map:
		d.mapping(v, node, at, depth)
	case reflect.Slice:
		d.list(v, node, at, depth)
	default:
		d.scalar(v, node, at)
	}
}

// message decodes a struct.
func (d *decoder) message(v reflect.Value, node *yaml.Node, at *place, depth int) {
	if node.Kind != yaml.MappingNode {
		d.problem(at, node, "want a mapping, got %s", describe(node))
		return
	}
	fields := d.fieldsOf(v.Type())
	seen := map[int]*yaml.Node{}
	for _, pair := range d.pairs(node, at, depth) {
		if d.spent {
			return
		}
		name := pair.key.Value
		field, known := fields[name]
		if !known {
			d.problem(at.key(name), pair.key, "unknown field").Hint = didYouMean(name, camelNames(fields), "fields here")
			continue
		}
		if first := seen[field.index]; first != nil {
			d.problem(at.key(field.name), pair.key, "given twice, first on line %d", first.Line)
			continue
		}
		seen[field.index] = pair.key
		d.decode(v.Field(field.index), pair.value, at.key(field.name), depth+1)
	}
}

// mapping decodes a map with the user's own keys.
func (d *decoder) mapping(v reflect.Value, node *yaml.Node, at *place, depth int) {
	if node.Kind != yaml.MappingNode {
		d.problem(at, node, "want a mapping, got %s", describe(node))
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), min(len(node.Content)/2, 1024)))
	seen := map[string]int{}
	for _, pair := range d.pairs(node, at, depth) {
		if d.spent {
			return
		}
		name := pair.key.Value
		if line, twice := seen[name]; twice {
			d.problem(at.key(name), pair.key, "given twice, first on line %d", line)
			continue
		}
		seen[name] = pair.key.Line
		element := reflect.New(v.Type().Elem()).Elem()
		if element.Kind() != reflect.Interface && isNull(pair.value) {
			d.problem(at.key(name), pair.value, "want %s, got nothing", wanted(element.Type()))
			continue
		}
		d.decode(element, pair.value, at.key(name), depth+1)
		v.SetMapIndex(reflect.ValueOf(name), element)
	}
}

// list decodes a slice.
func (d *decoder) list(v reflect.Value, node *yaml.Node, at *place, depth int) {
	if node.Kind != yaml.SequenceNode {
		d.problem(at, node, "want a list, got %s", describe(node))
		return
	}
	out := reflect.MakeSlice(v.Type(), 0, min(len(node.Content), 1024))
	for i, item := range node.Content {
		if d.spent {
			return
		}
		element := reflect.New(v.Type().Elem()).Elem()
		if element.Kind() != reflect.Interface && isNull(item) {
			d.problem(at.at(i), item, "want %s, got nothing", wanted(element.Type()))
			continue
		}
		d.decode(element, item, at.at(i), depth+1)
		out = reflect.Append(out, element)
	}
	v.Set(out)
}

// scalar decodes text, numbers, booleans, durations and enumerations.
func (d *decoder) scalar(v reflect.Value, node *yaml.Node, at *place) {
	if node.Kind != yaml.ScalarNode {
		d.problem(at, node, "want %s, got %s", wanted(v.Type()), describe(node))
		return
	}
	text, tag := node.Value, node.ShortTag()
	isText := tag == "!!str" || tag == "!!timestamp"
	switch target := v.Addr().Interface().(type) {
	case *Duration:
		if !isText {
			d.problem(at, node, "want a duration such as 30s, got %s", describe(node))
			return
		}
		parsed, err := ParseDuration(text)
		if err != nil {
			d.problem(at, node, "%w", err)
			return
		}
		*target = parsed
		return
	case enumNames:
		d.enum(v, node, at)
		return
	}
	switch v.Kind() {
	case reflect.String:
		if !isText {
			d.problem(at, node, "want text, got %s", describe(node)).Hint = "put it in quotes"
			return
		}
		v.SetString(text)
	case reflect.Bool:
		if tag != "!!bool" {
			d.problem(at, node, "want true or false, got %s", describe(node))
			return
		}
		v.SetBool(strings.EqualFold(text, "true"))
	case reflect.Float64:
		number, err := number(node)
		if err != nil {
			d.problem(at, node, "want a number, got %s", describe(node))
			return
		}
		v.SetFloat(number)
	default:
		d.integer(v, node, at)
	}
}

func (d *decoder) integer(v reflect.Value, node *yaml.Node, at *place) {
	// Protobuf JSON writes 64-bit integers as text.
	if n, err := strconv.ParseInt(node.Value, 10, 64); err == nil && !v.OverflowInt(n) {
		v.SetInt(n)
		return
	}
	value, err := number(node)
	if err != nil || value != math.Trunc(value) || math.Abs(value) > maxExactInteger || v.OverflowInt(int64(value)) {
		d.problem(at, node, "want a whole number, got %s", describe(node))
		return
	}
	v.SetInt(int64(value))
}

func (d *decoder) enum(v reflect.Value, node *yaml.Node, at *place) {
	names := v.Interface().(enumNames).enumNames()
	text := node.Value
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < len(names) {
		text = names[n] // protobuf JSON accepts the number of a value
	}
	if !slices.Contains(names, text) {
		d.problem(at, node, "unknown value %q", clip(node.Value, 60)).Hint = didYouMean(node.Value, names[1:], "values")
		return
	}
	if !strings.HasSuffix(text, "_UNSPECIFIED") {
		v.SetString(text)
	}
}

// value decodes a google.protobuf.Value: nil, bool, float64, string, []any or
// map[string]any.
func (d *decoder) value(node *yaml.Node, at *place, depth int) any {
	switch node.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		d.mapping(reflect.ValueOf(&out).Elem(), node, at, depth)
		return out
	case yaml.SequenceNode:
		out := []any{}
		d.list(reflect.ValueOf(&out).Elem(), node, at, depth)
		return out
	}
	switch node.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(node.Value, "true")
	case "!!int", "!!float":
		n, err := number(node)
		if err != nil {
			d.problem(at, node, "%w", err)
			return nil
		}
		return n
	}
	return node.Value
}

// number reads a number, or text that is one (protobuf JSON allows both).
func number(node *yaml.Node) (float64, error) {
	text := strings.ReplaceAll(node.Value, "_", "")
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		// YAML also has 0x1F, 0o17 and 0b11.
		var whole int64
		if whole, err = strconv.ParseInt(text, 0, 64); err != nil {
			return 0, fmt.Errorf("%q is not a number that JSON can hold", clip(node.Value, 60))
		}
		n = float64(whole)
	}
	if math.IsInf(n, 0) || math.IsNaN(n) {
		return 0, fmt.Errorf("%q is not a number that JSON can hold", clip(node.Value, 60))
	}
	return n, nil
}

// pair is one entry of a mapping.
type pair struct{ key, value *yaml.Node }

// pairs are the entries of a mapping, with YAML's merge key ("<<") expanded:
// what stands in the mapping itself wins over what is merged in.
func (d *decoder) pairs(node *yaml.Node, at *place, depth int) []pair {
	out := make([]pair, 0, len(node.Content)/2)
	var merged []pair
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			d.problem(at, key, "a key must be text, got %s", describe(key))
			continue
		}
		if key.ShortTag() == "!!merge" {
			merged = append(merged, d.merge(value, at, depth+1)...)
			continue
		}
		out = append(out, pair{key, value})
	}
	if len(merged) == 0 {
		return out
	}
	own := map[string]bool{}
	for _, p := range out {
		own[p.key.Value] = true
	}
	for _, p := range merged {
		if !own[p.key.Value] {
			own[p.key.Value] = true
			out = append(out, p)
		}
	}
	return out
}

func (d *decoder) merge(node *yaml.Node, at *place, depth int) []pair {
	target, ok := d.enter(node, at, depth)
	if !ok {
		return nil
	}
	defer d.leave(target)
	switch target.Kind {
	case yaml.MappingNode:
		d.nodes += len(target.Content)
		return d.pairs(target, at, depth)
	case yaml.SequenceNode:
		var out []pair
		for _, item := range target.Content {
			out = append(out, d.merge(item, at, depth+1)...)
		}
		return out
	}
	d.problem(at, node, "<< wants a mapping, got %s", describe(target))
	return nil
}

// fieldsOf finds a struct's fields by both spellings of their names.
func (d *decoder) fieldsOf(t reflect.Type) map[string]fieldInfo {
	if fields, known := d.fields[t]; known {
		return fields
	}
	fields := map[string]fieldInfo{}
	for i := range t.NumField() {
		name := jsonName(t.Field(i))
		info := fieldInfo{index: i, name: name}
		fields[name] = info
		fields[snake(name)] = info
	}
	d.fields[t] = fields
	return fields
}

func camelNames(fields map[string]fieldInfo) []string {
	names := map[string]bool{}
	for _, info := range fields {
		names[info.name] = true
	}
	out := make([]string, 0, len(names))
	for name := range names {
		out = append(out, name)
	}
	return out
}

func jsonName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	return name
}

// snake turns camelCase into snake_case.
func snake(camel string) string {
	var b strings.Builder
	for _, r := range camel {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

// describe says what a node is, for a message.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return describe(node.Alias)
	}
	switch node.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "the boolean " + node.Value
	case "!!int", "!!float":
		return "the number " + clip(node.Value, 40)
	}
	return fmt.Sprintf("the text %q", clip(node.Value, 40))
}

// wanted says what a type wants, for a message.
func wanted(t reflect.Type) string {
	if t == reflect.TypeFor[Duration]() {
		return "a duration such as 30s"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.Struct, reflect.Map:
		return "a mapping"
	case reflect.Slice:
		return "a list"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float64:
		return "a number"
	}
	return "a whole number"
}
