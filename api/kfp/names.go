package kfp

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
)

// ObjectName is the name of the object behind a name of KFP, which may hold any
// character: itself where that can be, else one that ends with its hash.
func ObjectName(name string) string {
	if len(name) <= 200 && dnsName.MatchString(name) {
		return name
	}
	return slug(name, 100) + "-" + hashOf(name)
}

// VersionObjectName is the name of the object of a pipeline's version: its own
// name is unique in its pipeline alone, an object's in its namespace.
func VersionObjectName(pipeline, name string) string {
	return slug(pipeline, 80) + "-" + slug(name, 80) + "-" + hashOf(pipeline+"\x00"+name)
}

var dnsName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

var unfit = regexp.MustCompile(`[^a-z0-9]+`)

// slug is text as a part of an object's name.
func slug(text string, most int) string {
	s := strings.Trim(unfit.ReplaceAllString(strings.ToLower(text), "-"), "-")
	if len(s) > most {
		s = strings.TrimRight(s[:most], "-")
	}
	if s == "" {
		return "x"
	}
	return s
}
