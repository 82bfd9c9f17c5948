# ruff: noqa: E501 -- a sentence and its reading are one line
"""What a reader says for sentences as people write them, by hand."""

import pytest

from kamerton.text.normalise import normalise

ENGLISH = [
    # people, places
    ("Dr. Brown lives at 221B Baker St.", "doctor brown lives at two hundred and twenty-one b baker street."),
    ("Mrs. Hall and Prof. Grey met Sgt. Pepper.", "missus hall and professor grey met sergeant pepper."),
    ("They climbed Mt. Everest from Ft. Worth.", "they climbed mount everest from fort worth."),
    ("J. R. R. Tolkien and C.S. Lewis were friends.", "j r r tolkien and c s lewis were friends."),
    ("Turn left at 5th Ave. and Oak Rd.", "turn left at fifth avenue and oak road."),
    # kings, chapters, wars
    ("Henry VIII had six wives.", "henry the eighth had six wives."),
    ("Louis XIV built Versailles.", "louis the fourteenth built versailles."),
    ("Queen Elizabeth II opened it.", "queen elizabeth the second opened it."),
    ("World War II ended in 1945.", "world war two ended in nineteen forty-five."),
    ("See Chapter IV, Part III.", "see chapter four, part three."),
    ("Act I, Scene II", "act one, scene two"),
    ("I think I can mix it.", "i think i can mix it."),
    ("Start the IV drip in Room XX.", "start the iv drip in room xx."),
    # dates
    ("It happened on July 4, 1776.", "it happened on july fourth, seventeen seventy-six."),
    ("On 4 July 1776 it was signed.", "on the fourth of july seventeen seventy-six it was signed."),
    ("The 3rd of May", "the third of may"),
    ("Due 3/14/2025.", "due march fourteenth twenty twenty-five."),
    ("Born Jan. 5, 1990, died Dec. 25, 2020.", "born january fifth, nineteen ninety, died december twenty-fifth, twenty twenty."),
    ("From 1990-1995 we waited.", "from nineteen ninety to nineteen ninety-five we waited."),
    ("In 2005 and in 2000", "in two thousand and five and in two thousand"),
    ("The 80s, the '90s and the 1800s", "the eighties, the nineties and the eighteen hundreds"),
    ("mid-1990s fashion", "mid-nineteen nineties fashion"),
    ("The 101st and the 22nd", "the one hundred and first and the twenty-second"),
    ("Caesar died in 44 B.C.", "caesar died in forty-four b c."),
    # times
    ("The train leaves at 10:05 a.m.", "the train leaves at ten oh five a m."),
    ("Lunch is at 12:00, supper at 7:30 PM.", "lunch is at twelve o'clock, supper at seven thirty p m."),
    ("Open 24/7.", "open twenty-four seven."),
    ("At 6 a.m. the bell rang.", "at six a m the bell rang."),
    # money
    ("It costs $0.99 or $1.", "it costs ninety-nine cents or one dollar."),
    ("They raised $1.5 million and £5m.", "they raised one point five million dollars and five million pounds."),
    ("A $2bn deal, or $10k a day", "a two billion dollars deal, or ten thousand dollars a day"),
    ("Pay 20 € now.", "pay twenty euros now."),
    ("$1,234.56 in all", "one thousand two hundred and thirty-four dollars and fifty-six cents in all"),
    # measures
    ("He ran 3.5 km in 20 min.", "he ran three point five kilometers in twenty minutes."),
    ("A 100 m race at 25 km/h", "a one hundred meters race at twenty-five kilometers per hour"),
    ("It is 5 ft 10 in. tall.", "it is five feet ten inches tall."),
    ("Add 250 ml of milk and 5 g of salt.", "add two hundred and fifty milliliters of milk and five grams of salt."),
    ("It's 5°C here and -10 °F there.", "it's five degrees celsius here and minus ten degrees fahrenheit there."),
    ("A room of 20 m² and 50 m³", "a room of twenty square meters and fifty cubic meters"),
    ("Only 0.5% of 1,000,000", "only zero point five percent of one million"),
    ("A 16 GB stick at 5 GHz", "a sixteen gigabytes stick at five gigahertz"),
    # fractions, sums
    ("Add 1/2 cup and 3/4 spoon.", "add one half cup and three quarters spoon."),
    ("2 1/2 hours, ½ day", "two and a half hours, one half day"),
    ("2/3 of them", "two thirds of them"),
    ("2 + 2 = 4", "two plus two equals four"),
    ("A 3 × 4 grid", "a three times four grid"),
    # numbers in words
    ("A 7-year-old boy with 2 dogs", "a seven-year-old boy with two dogs"),
    ("COVID-19 and an MP3", "covid-nineteen and an m p three"),
    ("Call 555-1234 now.", "call five five five one two three four now."),
    ("Call 1-800-555-0199.", "call one eight zero zero five five five zero one nine nine."),
    ("We won 3-2.", "we won three to two."),
    ("Version 2.0.1 is out.", "version two point zero point one is out."),
    # signs and abbreviations
    ("AT&T and Q&A", "at and t and q and a"),
    ("Item #1 got an A+.", "item number one got an a plus."),
    ("Write to ann@example.com.", "write to ann at example dot com."),
    ("See www.example.org/help.", "see w w w dot example dot org slash help."),
    ("See vol. 3, pp. 12-15, fig. 2.", "see volume three, pages twelve to fifteen, figure two."),
    ("The U.S. economy and the U.S.A.", "the u s economy and the u s a."),
    ("She holds a Ph.D. in physics.", "she holds a p h d in physics."),
    ("He watched the BBC on TV.", "he watched the b b c on t v."),
    ("Cats, dogs, etc. were fed.", "cats, dogs, et cetera were fed."),
    ("Smith vs. Jones, i.e. a fight", "smith versus jones, that is a fight"),
    ("He asked: “Why?”", 'he asked: "why?"'),
    ("rock 'n' roll", "rock 'n' roll"),
]  # fmt: skip
RUSSIAN = [
    # даты и годы
    ("Он родился 12 апреля 1961 года.", "он родился двенадцатого апреля тысяча девятьсот шестьдесят первого года."),
    ("3 января 2020 г.", "третьего января две тысячи двадцатого года."),
    ("Дата: 01.09.2023", "дата: первое сентября две тысячи двадцать третьего года"),
    ("Открыт 01.09.2023 г.", "открыт первого сентября две тысячи двадцать третьего года."),
    ("Война 1812 года", "война тысяча восемьсот двенадцатого года"),
    ("В 2023 году", "в две тысячи двадцать третьем году"),
    ("с 1941 по 1945 год", "с тысяча девятьсот сорок первого по тысяча девятьсот сорок пятый год"),
    ("в 1941-1945 гг.", "в тысяча девятьсот сорок первом - тысяча девятьсот сорок пятом годах."),
    ("в 1990-х годах", "в тысяча девятьсот девяностых годах"),
    ("лихие 90-е", "лихие девяностые"),
    ("5-е место", "пятое место"),
    ("к 2030 году", "к две тысячи тридцатому году"),
    # века, цари, главы
    ("В XIX веке жили иначе.", "в девятнадцатом веке жили иначе."),
    ("XX век начался.", "двадцатый век начался."),
    ("Конец XVIII века", "конец восемнадцатого века"),
    ("в XX в.", "в двадцатом веке."),
    ("Пётр I и Екатерина II", "пётр первый и екатерина вторая"),
    ("При Петре I и Николае II", "при петре первом и николае втором"),
    ("Указ Екатерины II", "указ екатерины второй"),
    ("Людовик XIV и Генрих VIII", "людовик четырнадцатый и генрих восьмой"),
    ("Глава IV, том II, часть III", "глава четвёртая, том второй, часть третья"),
    ("II мировая война", "вторая мировая война"),
    # время
    ("Поезд в 15:30, а не в 9:00.", "поезд в пятнадцать тридцать, а не в девять ноль ноль."),
    ("с 10:00 до 18:00", "с десяти ноль ноль до восемнадцати ноль ноль"),
    # деньги
    ("Цена 100 руб.", "цена сто рублей."),
    ("1 руб. 50 коп.", "один рубль пятьдесят копеек."),
    ("За $100 и €20", "за сто долларов и двадцать евро"),
    ("5 млн руб. и 2 млрд долларов", "пять миллионов рублей и два миллиарда долларов"),
    ("€5 млн", "пять миллионов евро"),
    ("цена 3,50 руб.", "цена три рубля пятьдесят копеек."),
    # меры
    ("До города 25 км.", "до города двадцать пять километров."),
    ("Скорость 90 км/ч, ветер 5 м/с", "скорость девяносто километров в час, ветер пять метров в секунду"),
    ("1,5 кг и 0,5 л", "одна целая пять десятых килограмма и ноль целых пять десятых литра"),
    ("Комната 20 м², бак 2 м³", "комната двадцать квадратных метров, бак два кубических метра"),
    ("За окном -5 °C.", "за окном минус пять градусов цельсия."),
    ("21 мин. и 2 сек.", "двадцать одна минута и две секунды."),
    ("5% и 21%", "пять процентов и двадцать один процент"),
    ("12 тыс. человек", "двенадцать тысяч человек"),
    # падеж после предлога
    ("от 5 до 10 человек", "от пяти до десяти человек"),
    ("более 100 километров", "более ста километров"),
    ("около 20 км", "около двадцати километров"),
    ("не менее 21 дня", "не менее двадцати одного дня"),
    ("до 2 кг", "до двух килограммов"),
    ("1 000 000 звёзд", "один миллион звёзд"),
    # род
    ("2 книги и 1 книга", "две книги и одна книга"),
    ("2 стола, 1 стол, 1 окно", "два стола, один стол, одно окно"),
    ("22 минуты и 21 минута", "двадцать две минуты и двадцать одна минута"),
    ("на 1 минуту", "на одну минуту"),
    # порядковые, сложные слова
    ("5-й этаж, 2-я улица, 3-го числа", "пятый этаж, вторая улица, третьего числа"),
    ("10-летний мальчик", "десятилетний мальчик"),
    ("40-летие и 100-летие", "сорокалетие и столетие"),
    ("25-минутный урок, 3-этажный дом", "двадцатипятиминутный урок, трёхэтажный дом"),
    # сокращения
    ("ул. Ленина, д. 5, кв. 12", "улица ленина, дом пять, квартира двенадцать"),
    ("в г. Москве и г. Тула", "в городе москве и город тула"),
    ("и т. д., и т. п.", "и так далее, и тому подобное."),
    ("т. е. так, т. к. надо", "то есть так, так как надо"),
    ("см. рис. 3 на стр. 5", "смотри рисунок три на странице пять"),
    ("гл. 3, п. 5, ст. 10, т. 2", "глава три, пункт пять, статья десять, том два"),
    ("г-н Иванов и г-жа Петрова", "господин иванов и госпожа петрова"),
    ("д-р Хаус, проф. Ильин", "доктор хаус, профессор ильин"),
    ("СССР, МВД и ФСБ", "эс эс эс эр, эм вэ дэ и эф эс бэ"),
    ("ООН и НАТО", "оон и нато"),
    # прочее
    ("тел. 123-45-67", "телефон сто двадцать три сорок пять шестьдесят семь"),
    ("№ 5 и 2+2=4", "номер пять и два плюс два равно четыре"),
    ("1/2 и 3/4", "одна вторая и три четвёртых"),
    ("Счёт 3:2, 10–15 минут", "счёт три два, десять - пятнадцать минут"),
    ("«Да», — сказал он.", '"да", сказал он.'),
]  # fmt: skip


@pytest.mark.parametrize(("written", "spoken"), ENGLISH)
def test_english(written, spoken):
    assert normalise(written, "en") == spoken


@pytest.mark.parametrize(("written", "spoken"), RUSSIAN)
def test_russian(written, spoken):
    assert normalise(written, "ru") == spoken


@pytest.mark.parametrize(
    ("language", "table"), [("en", ENGLISH), ("ru", RUSSIAN)], ids=["en", "ru"]
)
def test_normalising_again_changes_nothing(language, table):
    for written, _ in table:
        once = normalise(written, language)
        assert normalise(once, language) == once
