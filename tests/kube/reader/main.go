// Command reader says what kubectl reads in manifest files.
//
// It is kubectl's own reader (`kubectl create -f`: cli-runtime's builder, unstructured, flattened,
// going on after an error), without an API server to ask. It reads paths, one in each line, and
// answers each with a line of JSON: the objects of the file in their order, and the errors.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"log"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/cli-runtime/pkg/resource"
)

type reading struct {
	Objects []runtime.Object `json:"objects"`
	Errors  []string         `json:"errors"`
}

func main() {
	answers := json.NewEncoder(os.Stdout)
	paths := bufio.NewScanner(os.Stdin)
	for paths.Scan() {
		if err := answers.Encode(read(paths.Text())); err != nil {
			log.Fatal(err)
		}
	}
}

func read(path string) reading {
	found := reading{Objects: []runtime.Object{}, Errors: []string{}}
	files := &resource.FilenameOptions{Filenames: []string{path}}
	builder := resource.NewLocalBuilder().Unstructured().ContinueOnError()
	err := builder.FilenameParam(false, files).Flatten().Do().Visit(
		func(info *resource.Info, err error) error {
			if err == nil {
				found.Objects = append(found.Objects, info.Object)
			}
			return err
		})
	var several utilerrors.Aggregate
	if errors.As(err, &several) {
		for _, one := range several.Errors() {
			found.Errors = append(found.Errors, one.Error())
		}
	} else if err != nil {
		found.Errors = append(found.Errors, err.Error())
	}
	return found
}
