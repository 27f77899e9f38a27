package store

import "bytes"

// The functions of this file walk the top level of JSON objects that
// json.Marshal made: compact, with unescaped ASCII field names. Anything else
// ends the walk early, which callers take as a difference.

// nextField returns the field that begins at data[at:], where at is 0 or what a
// previous call returned, and where the next begins.
func nextField(data []byte, at int) (name, value []byte, next int, ok bool) {
	if at >= len(data) || (data[at] != '{' && data[at] != ',') {
		return nil, nil, 0, false
	}
	at++
	if at >= len(data) || data[at] != '"' {
		return nil, nil, 0, false
	}
	end := skipString(data, at)
	if end < 0 || end >= len(data) || data[end] != ':' {
		return nil, nil, 0, false
	}
	name = data[at+1 : end-1]
	start := end + 1
	end = skipValue(data, start)
	if end < 0 || end >= len(data) {
		return nil, nil, 0, false
	}
	return name, data[start:end], end, true
}

// skipString returns the index after the string that begins at data[at], or -1.
func skipString(data []byte, at int) int {
	for i := at + 1; i < len(data); {
		quote := bytes.IndexByte(data[i:], '"')
		if quote < 0 {
			return -1
		}
		end := i + quote
		backslashes := 0
		for data[end-1-backslashes] == '\\' {
			backslashes++
		}
		i = end + 1
		if backslashes%2 == 0 {
			return i
		}
	}
	return -1
}

// skipValue returns the index of the ',' or '}' after the value that begins at
// data[at], or -1.
func skipValue(data []byte, at int) int {
	depth := 0
	for i := at; i < len(data); i++ {
		switch data[i] {
		case '"':
			if i = skipString(data, i) - 1; i < 0 {
				return -1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return -1
}

// topLevel finds the value of the field "metadata"; ok tells whether the walk
// reached the end of the object.
func topLevel(data []byte) (metadata []byte, ok bool) {
	at := 0
	for {
		name, value, next, more := nextField(data, at)
		if !more {
			return metadata, at == len(data)-1 || (at == 0 && string(data) == "{}")
		}
		if string(name) == "metadata" {
			metadata = value
		}
		at = next
	}
}

// sameSpec reports whether two encodings of one kind are equal in all but
// metadata and status.
func sameSpec(a, b []byte) bool {
	nextSpec := func(data []byte, at *int) (name, value []byte, ok bool) {
		for {
			name, value, next, ok := nextField(data, *at)
			if !ok {
				return nil, nil, false
			}
			*at = next
			if s := string(name); s != "metadata" && s != "status" {
				return name, value, true
			}
		}
	}
	i, j := 0, 0
	for {
		nameA, valueA, okA := nextSpec(a, &i)
		nameB, valueB, okB := nextSpec(b, &j)
		if !okA || !okB {
			return !okA && !okB
		}
		if !bytes.Equal(nameA, nameB) || !bytes.Equal(valueA, valueB) {
			return false
		}
	}
}
