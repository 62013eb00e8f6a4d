"""The builder's pip settings inside an image build."""

from e2e.cluster import pip_settings

CERTIFICATE_LINE = f"cert = {pip_settings.CERTIFICATES_INSIDE}\n"


def test_the_environment_overrides_files_and_later_files_earlier_ones():
    files = ["[global]\nindex-url = https://one\ntimeout = 1\n", "[global]\nindex_url = https://two\n"]
    settings = pip_settings.effective_settings(files, {"PIP_TIMEOUT": "9", "HOME": "/root"})
    assert settings == {"index-url": "https://two", "timeout": "9"}


def test_where_packages_go_is_not_passed_on():
    assert pip_settings.effective_settings(["[install]\ntarget = /x\nuser = true\n"], {"PIP_PREFIX": "/y"}) == {}


def test_a_percent_sign_is_no_interpolation():
    assert pip_settings.effective_settings(["[global]\nproxy = http://u:p%40@h\n"], {}) == {"proxy": "http://u:p%40@h"}


def test_the_certificate_is_read_from_the_secret_and_nowhere_else():
    settings = {"cert": "/etc/ssl/mine.crt"}
    assert CERTIFICATE_LINE in pip_settings.config_text(settings, folders=[], certificates=True)
    assert "cert" not in pip_settings.config_text(settings, folders=[], certificates=False)


def test_folders_that_are_not_in_the_build_are_left_out():
    settings = {"find-links": "/wheels /empty https://wheels.example"}
    assert pip_settings.local_folders(settings) == ["/wheels", "/empty"]
    text = pip_settings.config_text(settings, folders=["/wheels"], certificates=False)
    assert "/wheels\n" in text and "https://wheels.example" in text and "/empty" not in text


def test_the_text_is_a_configuration_that_means_the_same():
    settings = {"index-url": "https://i", "find-links": "https://a https://b"}
    text = pip_settings.config_text(settings, folders=[], certificates=False)
    again = pip_settings.effective_settings([text], {})
    assert again["index-url"] == "https://i" and again["find-links"].split() == ["https://a", "https://b"]
