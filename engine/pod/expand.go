package pod

import (
	"strings"

	"github.com/skiff-ml/skiff/api/core"
)

// expand replaces $(NAME) by what lookup knows, by the rules of core/v1: "$$"
// stands for "$", so "$$(NAME)" is the text "$(NAME)"; a name that is not known
// is left as it stands, and so is a "$" before anything else.
func expand(text string, lookup func(name string) (string, bool)) string {
	if !strings.Contains(text, "$") {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		switch text[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(text[i:], ')')
			if end < 0 {
				b.WriteString("$(")
				i++
				continue
			}
			name := text[i+2 : i+end]
			if value, known := lookup(name); known {
				b.WriteString(value)
			} else {
				b.WriteString(text[i : i+end+1])
			}
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// environment resolves a container's variables in order: each may refer to
// those before it. The list keeps the order of first appearance, a repeated
// name its last value.
func environment(vars []core.EnvVar) (env []string, lookup func(string) (string, bool)) {
	values := make(map[string]string, len(vars))
	lookup = func(name string) (string, bool) {
		value, known := values[name]
		return value, known
	}
	var order []string
	for _, v := range vars {
		value := expand(v.Value, lookup)
		if _, known := values[v.Name]; !known {
			order = append(order, v.Name)
		}
		values[v.Name] = value
	}
	env = make([]string, 0, len(order))
	for _, name := range order {
		env = append(env, name+"="+values[name])
	}
	return env, lookup
}

func expandAll(list []string, lookup func(string) (string, bool)) []string {
	out := make([]string, len(list))
	for i, text := range list {
		out[i] = expand(text, lookup)
	}
	return out
}
