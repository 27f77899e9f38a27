package core

import (
	"strings"

	"github.com/skiff-ml/skiff/api/problem"
)

// maxNameBytes bounds an object's name and a data key, as published.
const maxNameBytes = 253

// IsDNSSubdomain reports whether a name is what the published API asks of most
// objects' names: lower-case letters, digits, '-' and '.', at most 253 bytes,
// every part between dots beginning and ending with a letter or digit.
func IsDNSSubdomain(name string) bool {
	if name == "" || len(name) > maxNameBytes {
		return false
	}
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || part[0] == '-' || part[len(part)-1] == '-' {
			return false
		}
		for _, r := range part {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	return true
}

// IsDataKey reports whether a name can be a key of a Secret or a ConfigMap:
// letters, digits, '-', '_' and '.', at most 253 bytes. Keys become file names,
// so neither "." nor anything that begins with ".." is one.
func IsDataKey(key string) bool {
	if key == "" || key == "." || len(key) > maxNameBytes || strings.HasPrefix(key, "..") {
		return false
	}
	for _, r := range key {
		letter := (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') || (r >= '0' && r <= '9')
		if !letter && r != '-' && r != '_' && r != '.' {
			return false
		}
	}
	return true
}

// validateName checks metadata.name; a name that is still to be generated is
// checked by its prefix.
func validateName(list *problem.List, name, generate string) {
	if name == "" && generate != "" {
		name = generate + "x"
	}
	if !IsDNSSubdomain(name) {
		list.Add("metadata.name", "%q: want lower-case letters, digits, '-' and '.', at most %d", name, maxNameBytes)
	}
}

func validateKey(list *problem.List, field, key string) {
	if !IsDataKey(key) {
		list.Add(field, "key %q: want letters, digits, '-', '_' and '.', at most %d, not beginning with \"..\"", key, maxNameBytes)
	}
}
