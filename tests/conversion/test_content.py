from bigbird_port.conversion.values.content import Content, check_contents


def kernels(first, second):
    names = [f"encoder.layer.{i}.output.dense.kernel" for i in (0, 1)]
    return dict(zip(names, [Content(-1.0, 1.0, 4, first), Content(-1.0, 1.0, 4, second)], strict=True))


def test_layers_of_equal_kernels_are_found():
    found = check_contents(kernels("aa", "aa"))
    assert [(finding.kind, finding.weight) for finding in found] == [("equal layers", "encoder.layer.1")]


def test_layers_of_other_kernels_are_not():
    assert check_contents(kernels("aa", "bb")) == []


def test_without_checksums_no_layers_are_called_equal():
    assert check_contents(kernels("", "")) == []
