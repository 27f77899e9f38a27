package pipeline

import (
	"regexp"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
)

// The SDK compiles a lightweight component into
//
//	sh -c "<prelude>" sh -ec "<program>" "<source>" …
//
// where the prelude makes sure that pip is there, installs the component's
// packages with one or more "python3 -m pip install", and ends by running the
// rest of its arguments. Only a script made of exactly these parts is
// recognised: anything else runs as it is written.
var (
	pipInstall = regexp.MustCompile(`^(?:PIP_DISABLE_PIP_VERSION_CHECK=1 )?python3 -m pip install((?: +(?:'[^']*'|[^\s'"&;|<>$` + "`" + `\\]+))+)$`)
	ensurePip  = regexp.MustCompile(`(?s)^if ! \[ -x "\$\(command -v pip\)" \]; then\s+python3 -m ensurepip \|\| python3 -m ensurepip --user \|\| apt-get install python3-pip\s+fi$`)
	pipWord    = regexp.MustCompile(`'([^']*)'|(\S+)`)
)

// runRest is how a prelude ends.
const runRest = `"$0" "$@"`

// recognisePrelude reads the package prelude of a command as compiled, or nil.
// resolved is the same command with its placeholders filled in; what stands
// before the first of them is the same in both.
func recognisePrelude(compiled, resolved []string) *core.Environment {
	if len(compiled) < 4 || len(resolved) < 4 || compiled[0] != "sh" || compiled[1] != "-c" {
		return nil
	}
	script := strings.TrimSpace(compiled[2])
	end := strings.Index(script, "\nfi\n")
	if end < 0 || !ensurePip.MatchString(script[:end+len("\nfi")]) {
		return nil
	}
	env := &core.Environment{Command: resolved[3:]}
	parts := strings.Split(strings.TrimSpace(script[end+len("\nfi\n"):]), " && ")
	if len(parts) < 2 || parts[len(parts)-1] != runRest {
		return nil
	}
	for _, part := range parts[:len(parts)-1] {
		match := pipInstall.FindStringSubmatch(strings.TrimSpace(part))
		if match == nil {
			return nil
		}
		env.Calls = append(env.Calls, pipCall(match[1]))
	}
	return env
}

// optionsWithValue are pip's options that take the next word.
var optionsWithValue = map[string]bool{
	"--index-url": true, "-i": true, "--extra-index-url": true, "--trusted-host": true, "--find-links": true, "-f": true,
	"--constraint": true, "-c": true, "--target": true, "-t": true, "--platform": true, "--python-version": true,
}

func pipCall(words string) core.PipCall {
	var call core.PipCall
	takesValue := false
	for _, match := range pipWord.FindAllStringSubmatch(words, -1) {
		word := match[1] + match[2]
		switch {
		case takesValue:
			call.Options = append(call.Options, word)
			takesValue = false
		case strings.HasPrefix(word, "-"):
			call.Options = append(call.Options, word)
			takesValue = optionsWithValue[word]
		default:
			call.Packages = append(call.Packages, word)
		}
	}
	return call
}
