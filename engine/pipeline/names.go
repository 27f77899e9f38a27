package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// Names are derived, never drawn: a repeat after a crash comes to the same name
// and so to the same object, container and folder.

// taskName is the name of the Task at path in a run.
func taskName(runName, path string) string {
	return fmt.Sprintf("%s-%s-%s", runName, sanitized(lastOf(path), 30), shortHash(path))
}

// podName is the name of the pod of one attempt. Infrastructure restarts of the
// same attempt get a name of their own, for a pod runs only once.
func podName(runName, path string, attempt, restart int) string {
	name := fmt.Sprintf("%s-%s-%s-%d", sanitized(lastOf(path), 30), tailOf(runName, 12), shortHash(path), attempt)
	if restart > 0 {
		name += fmt.Sprintf("-r%d", restart)
	}
	return name
}

// runResourceName is what {{$.pipeline_job_resource_name}} resolves to: the
// pipeline's name with a suffix, as the cluster's backend names its workflows.
func runResourceName(pipelineName, runName string) string {
	return sanitized(pipelineName, 200) + "-" + tailOf(strings.ReplaceAll(runName, "-", ""), 5)
}

// A label's value may have 63 characters, a folder's name 255; both are kept
// short of that, and a folder's readable all the same.
const (
	maxLabel  = 63
	maxFolder = 128
)

// labelValue makes a task's path fit for a label.
func labelValue(path string) string { return flattened(path, maxLabel) }

// folderName makes a task's path one folder's name.
func folderName(path string) string { return flattened(path, maxFolder) }

// flattened writes a path with dots for slashes. One that this would leave too
// long, or like another's, or with characters that a label may not have, keeps
// its end, where it says most, and has its hash behind it.
func flattened(path string, limit int) string {
	flat := strings.ReplaceAll(path, "/", ".")
	if len(flat) <= limit && plainPath.MatchString(path) {
		return flat
	}
	flat = unlike.ReplaceAllString(flat, "-")
	hash := shortHash(path)
	if most := limit - len(hash) - 1; len(flat) > most {
		flat = flat[len(flat)-most:]
	}
	if flat = strings.Trim(flat, "-._"); flat == "" {
		return hash
	}
	return flat + "-" + hash
}

var (
	plainPath = regexp.MustCompile(`^[a-zA-Z0-9]([-_/a-zA-Z0-9]*[a-zA-Z0-9])?$`)
	unlike    = regexp.MustCompile(`[^-_.a-zA-Z0-9]`)
)

func lastOf(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

func tailOf(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.TrimLeft(text[len(text)-n:], "-.")
}

// shortHash tells the tasks of a run apart: with 48 bits, ten thousand of them
// have the same once in five million runs.
func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

// sanitized makes text fit for an object's name: lower-case letters, digits and
// dashes, at most limit of them, with a letter or digit at both ends.
func sanitized(text string, limit int) string {
	mapped := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + ('a' - 'A')
		default:
			return '-'
		}
	}, text)
	if len(mapped) > limit {
		mapped = mapped[:limit]
	}
	if mapped = strings.Trim(mapped, "-"); mapped == "" {
		return "x"
	}
	return mapped
}
