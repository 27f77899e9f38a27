package kfp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// maxDepth bounds how deep a message may nest.
const maxDepth = 32

// decode reads a message by protobuf's JSON rules: every field under its
// snake_case or camelCase name, 64-bit numbers as text or numbers, null for
// what is absent. What it does not know is an error.
func decode(data []byte, into any) error {
	target := reflect.ValueOf(into).Elem()
	if len(bytes.TrimSpace(data)) == 0 {
		return badRequest("the body is empty; want a JSON object")
	}
	if err := decodeValue(data, target, "", 0); err != nil {
		return err
	}
	return nil
}

var (
	rawType  = reflect.TypeFor[json.RawMessage]()
	timeType = reflect.TypeFor[time.Time]()
)

func decodeValue(data []byte, target reflect.Value, path string, depth int) error {
	if depth > maxDepth {
		return badRequest("%s: nests too deep", path)
	}
	if bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
		return nil
	}
	switch target.Type() {
	case rawType:
		if !json.Valid(data) {
			return badRequest("%s: is not JSON", place(path))
		}
		target.SetBytes(bytes.Clone(data))
		return nil
	case timeType:
		return decodeTime(data, target, path)
	}
	switch target.Kind() {
	case reflect.Pointer:
		inner := reflect.New(target.Type().Elem())
		if err := decodeValue(data, inner.Elem(), path, depth+1); err != nil {
			return err
		}
		target.Set(inner)
		return nil
	case reflect.Struct:
		return decodeStruct(data, target, path, depth)
	case reflect.Int64, reflect.Int32:
		return decodeInt(data, target, path)
	case reflect.Slice:
		var items []json.RawMessage
		if err := json.Unmarshal(data, &items); err != nil {
			return badRequest("%s: want a list", place(path))
		}
		list := reflect.MakeSlice(target.Type(), len(items), len(items))
		for i, item := range items {
			if err := decodeValue(item, list.Index(i), fmt.Sprintf("%s[%d]", path, i), depth+1); err != nil {
				return err
			}
		}
		target.Set(list)
		return nil
	}
	if err := json.Unmarshal(data, target.Addr().Interface()); err != nil {
		return badRequest("%s: want %s", place(path), describe(target.Kind()))
	}
	return nil
}

func decodeStruct(data []byte, target reflect.Value, path string, depth int) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return badRequest("%s: want a JSON object: %v", place(path), err)
	}
	names := fieldsOf(target.Type())
	set := map[int]string{}
	for key, value := range members {
		index, known := names[key]
		if !known {
			return badRequest("unknown field %q", join(path, key))
		}
		if other, twice := set[index]; twice {
			return badRequest("%s: is given twice, as %s and %s", join(path, key), other, key)
		}
		set[index] = key
		if err := decodeValue(value, target.Field(index), join(path, key), depth+1); err != nil {
			return err
		}
	}
	return nil
}

// fieldsOf maps both names of each field to its index.
func fieldsOf(t reflect.Type) map[string]int {
	names := make(map[string]int, 2*t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names[name] = i
		names[camel(name)] = i
	}
	return names
}

// camel is protobuf's JSON name of a field.
func camel(snake string) string {
	parts := strings.Split(snake, "_")
	for i, part := range parts[1:] {
		if part != "" {
			parts[i+1] = strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return strings.Join(parts, "")
}

func decodeInt(data []byte, target reflect.Value, path string) error {
	text := strings.Trim(string(bytes.TrimSpace(data)), `"`)
	n, err := strconv.ParseInt(text, 10, target.Type().Bits())
	if err != nil {
		// Protobuf takes 1.0 and 1e3 for whole numbers, too.
		f, floatErr := strconv.ParseFloat(text, 64)
		if n = int64(f); floatErr != nil || float64(n) != f || target.OverflowInt(n) {
			return badRequest("%s: want a whole number of %d bits, got %.40s", place(path), target.Type().Bits(), data)
		}
	}
	target.SetInt(n)
	return nil
}

func decodeTime(data []byte, target reflect.Value, path string) error {
	var text string
	err := json.Unmarshal(data, &text)
	var t time.Time
	if err == nil {
		t, err = time.Parse(time.RFC3339Nano, text)
	}
	if err != nil {
		return badRequest("%s: want a time such as 2006-01-02T15:04:05Z, got %.40s", place(path), data)
	}
	target.Set(reflect.ValueOf(t.UTC()))
	return nil
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func place(path string) string {
	if path == "" {
		return "the body"
	}
	return path
}

func describe(kind reflect.Kind) string {
	switch kind {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Map:
		return "a JSON object"
	default:
		return "another value"
	}
}
