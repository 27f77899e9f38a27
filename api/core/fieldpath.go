package core

import (
	"fmt"
	"slices"
	"strings"
)

// CutFieldPath takes "metadata.labels['key']" apart; ok is false for a path of
// another form.
func CutFieldPath(path string) (group, key string, ok bool) {
	group, rest, found := strings.Cut(path, "['")
	key, closed := strings.CutSuffix(rest, "']")
	return group, key, found && closed && key != ""
}

// FieldPaths are the fields of a pod that a variable can have, beside single
// labels and annotations.
func FieldPaths() []string {
	return []string{
		"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
	}
}

// CheckFieldPath refuses a path that is no field which a variable can have.
func CheckFieldPath(path string) error {
	if group, _, ok := CutFieldPath(path); ok && (group == "metadata.labels" || group == "metadata.annotations") {
		return nil
	}
	if slices.Contains(FieldPaths(), path) {
		return nil
	}
	return fmt.Errorf("fieldPath %q cannot be had; want one of %s, metadata.labels['KEY'] or metadata.annotations['KEY']",
		path, strings.Join(FieldPaths(), ", "))
}
